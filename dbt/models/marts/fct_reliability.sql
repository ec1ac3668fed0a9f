-- Wilson's score interval, 95 %: E. B. Wilson (1927), Journal of the American Statistical Association 22.
with bins as (
    select
        dataset_id,
        data_label,
        strategy_id,
        version_id,
        confidence_bin,
        sum(resolved)::float as n,
        sum(successes)::float as k,
        sum(resolved_confidence_sum) as confidence_sum
    from {{ ref('fct_signal_quality') }}
    where resolved > 0
    group by 1, 2, 3, 4, 5
),

wilson as (
    select
        *,
        k / n as p,
        1.96 ^ 2 / n as z2n,
        1.96 * sqrt((k / n) * (1 - k / n) / n + 1.96 ^ 2 / (4 * n ^ 2)) as half
    from bins
)

select
    dataset_id,
    data_label,
    strategy_id,
    version_id,
    confidence_bin,
    n::bigint as resolved,
    k::bigint as successes,
    confidence_sum / n as mean_confidence,
    p as success_rate,
    greatest((p + z2n / 2 - half) / (1 + z2n), 0) as success_rate_lower,
    least((p + z2n / 2 + half) / (1 + z2n), 1) as success_rate_upper
from wilson
