{{ config(indexes=[{'columns': ['user_id', 'account_id', 'market_time']}]) }}
with points as (
    select
        e.*,
        a.account_kind,
        d.data_label,
        max(e.equity) over (
            partition by e.group_id, e.user_id, e.account_id order by e.market_time
        ) as peak_equity
    from {{ ref('stg_equity') }} as e
    left join {{ ref('stg_accounts') }} as a using (group_id, user_id, account_id)
    left join {{ ref('stg_datasets') }} as d on d.dataset_id = a.dataset_id
)

select
    group_id,
    user_id,
    account_id,
    account_kind,
    data_label,
    market_time,
    cash,
    positions_value,
    equity,
    currency,
    peak_equity,
    case when peak_equity > 0 then (equity / peak_equity - 1)::float end as drawdown
from points
