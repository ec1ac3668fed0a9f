-- A denial reads `RULE: observed=… limit=…`.
with blocks as (
    select
        'block-' || group_id || '-' || seq as event_id,
        event_ts,
        group_id,
        coalesce(nullif(split_part(status_message, ':', 1), ''), 'unnamed rule') as control_id,
        'order' as scope,
        {{ masked('account_id') }} as scope_ref,
        data_label,
        substring(status_message from '(?:limit|minimum|cash|last|available)=(\S+)') as threshold,
        substring(status_message from '(?:notional|position|open|price|lost|orders|needed)=(\S+)') as observed,
        'blocked' as action,
        status_message as reason,
        {{ masked_actor('actor') }} as actor,
        strategy_id,
        symbol,
        intent_id as order_ref,
        market_time,
        null::timestamptz as reset_at,
        null::varchar as reset_by,
        null::varchar as reset_reason
    from {{ ref('stg_audit_log') }}
    where event_type = 'RISK_BLOCK'
),

halts as (
    select
        'halt-' || h.halt_id as event_id,
        h.set_at as event_ts,
        case h.scope
            when 'group' then h.scope_id
            when 'account' then a.group_id
            when 'user' then u.group_id
        end as group_id,
        'halt latch' as control_id,
        h.scope,
        case when h.scope in ('account', 'user') then {{ masked('h.scope_id') }} else h.scope_id end as scope_ref,
        'no market data' as data_label,
        null::varchar as threshold,
        null::varchar as observed,
        'halted' as action,
        h.reason,
        {{ masked_actor('h.set_by') }} as actor,
        null::varchar as strategy_id,
        null::varchar as symbol,
        null::varchar as order_ref,
        null::timestamptz as market_time,
        h.cleared_at as reset_at,
        {{ masked_actor('h.cleared_by') }} as reset_by,
        h.clear_reason as reset_reason
    from {{ source('raw', 'halts') }} as h
    left join {{ ref('stg_accounts') }} as a on h.scope = 'account' and a.account_id = h.scope_id
    left join {{ source('raw', 'users') }} as u on h.scope = 'user' and u.user_id = h.scope_id
),

events as (
    select * from blocks
    union all
    select * from halts
)

select
    event_id,
    event_ts as event_ts_utc,
    {{ ist('event_ts') }} as event_ts_ist,
    {{ ist_date('event_ts') }} as event_date,
    group_id,
    control_id,
    scope,
    scope_ref,
    data_label,
    threshold,
    observed,
    action,
    reason,
    actor,
    strategy_id,
    symbol,
    order_ref,
    market_time,
    reset_at as reset_at_utc,
    reset_by,
    reset_reason
from events
