-- A signal is resolved when somebody traded it; all legs of an account's trade are one, by their sum, and several accounts'
-- trades of one signal count as one, by their majority.
with traded as (
    select
        signal_id,
        sum(net_pnl) > 0 as success
    from {{ ref('stg_outcomes') }}
    group by group_id, user_id, account_id, signal_id
),

resolved as (
    select
        signal_id,
        avg(success::int) >= 0.5 as success
    from traded
    group by signal_id
)

select
    s.dataset_id,
    d.data_label,
    s.strategy_id,
    s.version_id,
    s.role,
    {{ ist_date('s.available_at') }} as signal_date,
    s.volatility,
    s.trend,
    s.liquidity,
    s.session,
    least(floor(s.confidence * 10), 9) / 10 as confidence_bin,
    count(*) as signals,
    count(*) filter (where s.state = 'ok') as ok,
    count(*) filter (where s.state = 'abstain') as abstain,
    count(*) filter (where s.state = 'outlier') as outlier,
    count(*) filter (where s.state = 'expired') as expired,
    avg(s.confidence) as mean_confidence,
    count(r.signal_id) as resolved,
    count(*) filter (where r.success) as successes,
    sum(s.confidence) filter (where r.signal_id is not null) as resolved_confidence_sum,
    (count(*) filter (where r.success))::float / nullif(count(r.signal_id), 0) as precision
from {{ ref('stg_signals') }} as s
left join {{ ref('stg_datasets') }} as d on d.dataset_id = s.dataset_id
left join resolved as r on r.signal_id = s.signal_id
group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
