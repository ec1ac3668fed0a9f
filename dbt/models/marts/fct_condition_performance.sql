with trades as (
    select t.*, c.condition_type, c.condition
    from {{ ref('fct_trades') }} as t
    cross join lateral (
        values
        ('volatility', t.volatility), ('trend', t.trend), ('liquidity', t.liquidity), ('session', t.session)
    ) as c (condition_type, condition)
    where t.arm in ('champion', 'challenger')  -- legs of sets are no trades of a model
)

select
    dataset_id,
    data_label,
    strategy_id,
    version_id,
    condition_type,
    condition,
    currency,
    count(*) as trades,
    count(*) filter (where success) as successes,
    avg(success::int)::float as success_rate,
    avg(confidence) as mean_confidence,
    avg(net_return) as mean_net_return,
    stddev_samp(net_return) as net_return_deviation,
    sum(net_pnl) as net_pnl
from trades
group by 1, 2, 3, 4, 5, 6, 7
