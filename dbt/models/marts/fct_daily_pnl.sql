{{ config(indexes=[{'columns': ['user_id', 'dataset_id', 'exit_date']}]) }}
with days as (
    select
        group_id,
        user_id,
        strategy_id,
        dataset_id,
        data_label,
        currency,
        exit_date,
        count(*) as trades,
        count(*) filter (where success) as successes,
        sum(gross_pnl) as gross_pnl,
        sum(costs) as costs,
        sum(net_pnl) as net_pnl
    from {{ ref('fct_trades') }}
    group by group_id, user_id, strategy_id, dataset_id, data_label, currency, exit_date
)

select
    *,
    sum(net_pnl) over (
        partition by group_id, user_id, strategy_id, dataset_id, currency order by exit_date
    ) as cumulative_net_pnl
from days
