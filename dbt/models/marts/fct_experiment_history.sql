with trades as (
    select
        e.experiment_id,
        count(*) filter (where t.version_id = e.champion_id) as champion_trades,
        count(*) filter (where t.version_id = e.challenger_id) as challenger_trades,
        avg(t.success::int) filter (where t.version_id = e.champion_id) as champion_success_rate,
        avg(t.success::int) filter (where t.version_id = e.challenger_id) as challenger_success_rate,
        avg(t.net_return) filter (where t.version_id = e.champion_id) as champion_mean_net_return,
        avg(t.net_return) filter (where t.version_id = e.challenger_id) as challenger_mean_net_return
    from {{ source('raw', 'experiments') }} as e
    inner join {{ ref('fct_trades') }} as t
        on
            t.dataset_id = e.dataset_id
            and t.strategy_id = e.strategy_id
            and t.version_id in (e.champion_id, e.challenger_id)
            and t.arm in ('champion', 'challenger')  -- legs of sets are no trades of a model
            and t.entry_time >= e.started_at
            and t.entry_time < coalesce(e.ended_at, 'infinity')
    group by e.experiment_id
)

select
    e.experiment_id,
    e.dataset_id,
    d.data_label,
    e.strategy_id,
    e.champion_id,
    e.challenger_id,
    e.split_basis_points,
    e.started_at,
    e.ended_at,
    e.decision,
    e.samples,
    e.lower,
    e.upper,
    coalesce(t.champion_trades, 0) as champion_trades,
    coalesce(t.challenger_trades, 0) as challenger_trades,
    t.champion_success_rate::float as champion_success_rate,
    t.challenger_success_rate::float as challenger_success_rate,
    t.champion_mean_net_return,
    t.challenger_mean_net_return
from {{ source('raw', 'experiments') }} as e
left join {{ ref('stg_datasets') }} as d on d.dataset_id = e.dataset_id
left join trades as t on t.experiment_id = e.experiment_id
