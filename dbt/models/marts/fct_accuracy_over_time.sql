with days as (
    select
        dataset_id,
        data_label,
        strategy_id,
        version_id,
        arm,
        exit_date,
        count(*) as trades,
        count(*) filter (where success) as successes,
        sum(confidence) as confidence_sum,
        sum((confidence - success::int) ^ 2) as brier_sum,
        sum(-ln(greatest(case when success then confidence else 1 - confidence end, 1e-6))) as log_loss_sum
    from {{ ref('fct_trades') }}
    group by 1, 2, 3, 4, 5, 6
)

select
    dataset_id,
    data_label,
    strategy_id,
    version_id,
    arm,
    exit_date,
    trades,
    successes,
    successes::float / trades as success_rate,
    confidence_sum / trades as mean_confidence,
    brier_sum / trades as brier,
    log_loss_sum / trades as log_loss,
    (sum(trades) over last_30)::bigint as trades_30d,
    (sum(successes) over last_30)::float / sum(trades) over last_30 as success_rate_30d,
    sum(log_loss_sum) over last_30 / sum(trades) over last_30 as log_loss_30d
from days
window last_30 as (
    partition by version_id, arm, dataset_id, strategy_id
    order by exit_date range between interval '29 days' preceding and current row
)
