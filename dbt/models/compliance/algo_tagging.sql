with configured as (
    select
        *,
        config ->> 'algo_id' as algo_id_expected
    from {{ ref('stg_strategy_configs') }}
),

sent as (
    select
        a.*,
        c.algo_id_expected,
        c.config,
        c.revision
    from {{ ref('stg_audit_log') }} as a
    left join configured as c
        on
            c.strategy_id = a.strategy_id
            and a.event_ts >= c.changed_at
            and a.event_ts < coalesce(c.superseded_at, 'infinity')
    where a.event_type = 'SEND'
)

select
    event_date as trade_date,
    group_id,
    coalesce(strategy_id, 'none') as strategy_id,
    coalesce(strategy_version, 'none') as version,
    account_kind,
    data_label,
    coalesce(config ->> 'class', 'unclassified') as class,
    case when config ->> 'registration_ref' is null then 'N' else 'Y' end as registered,
    algo_id_expected,
    string_agg(distinct algo_id, ' ' order by algo_id) as algo_id_sent,
    count(*) as orders,
    count(*) filter (where coalesce(tag, client_order_id) is null) as orders_untagged,
    count(*) filter (where algo_id is distinct from algo_id_expected and algo_id_expected is not null) as orders_wrong_id,
    min(event_ts_ist) as first_ts_ist,
    max(event_ts_ist) as last_ts_ist,
    config ->> 'registration_ref' as approval_ref,
    revision as change_ref
from sent
group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17
