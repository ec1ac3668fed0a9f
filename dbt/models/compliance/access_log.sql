select
    e.event_id,
    e.at as event_ts_utc,
    {{ ist('e.at') }} as event_ts_ist,
    {{ ist_date('e.at') }} as event_date,
    u.group_id,
    {{ masked('e.user_id') }} as user_ref,
    {{ masked_email('e.email') }} as email_masked,
    u.role,
    e.action,
    e.result,
    e.source_ip,
    e.user_agent
from {{ source('raw', 'login_events') }} as e
left join {{ source('raw', 'users') }} as u on u.user_id = e.user_id
