-- Orders per second, minute and day of an account on an exchange, by wall time: the exchanges count that way.
with requests as (
    select
        group_id,
        account_id,
        account_kind,
        data_label,
        exchange_or_venue as exchange,
        event_ts_ist,
        event_type,
        strategy_id,
        http_status
    from {{ ref('stg_audit_log') }}
    where event_type in ('SEND', 'MODIFY_REQ', 'CANCEL_REQ', 'REJECT')
),

windows as (
    select r.*, w.window_kind, w.ops_limit, date_trunc(w.window_kind, r.event_ts_ist) as window_start
    from requests as r
    cross join (values ('second', 10), ('minute', 400), ('day', 5000)) as w (window_kind, ops_limit)
),

counted as (
    select
        group_id,
        account_id,
        exchange,
        window_kind,
        window_start,
        ops_limit,
        min(account_kind) as account_kind,
        min(data_label) as data_label,
        count(*) filter (where event_type = 'SEND') as place_cnt,
        count(*) filter (where event_type = 'MODIFY_REQ') as modify_cnt,
        count(*) filter (where event_type = 'CANCEL_REQ') as cancel_cnt,
        count(*) filter (where event_type <> 'REJECT') as total,
        count(*) filter (where http_status = 429) as broker_429_cnt,
        mode() within group (order by strategy_id) as top_strategy
    from windows
    group by 1, 2, 3, 4, 5, 6
)

select
    window_start::date as trade_date,
    group_id,
    {{ masked('account_id') }} as account_ref,
    account_kind,
    data_label,
    exchange,
    window_kind,
    window_start,
    place_cnt,
    modify_cnt,
    cancel_cnt,
    total,
    ops_limit,
    total > ops_limit as over_limit,
    total > ops_limit and account_kind = 'live' as breached,
    broker_429_cnt,
    top_strategy
from counted
