select
    alert_id,
    raised_at as started_at_utc,
    {{ ist('raised_at') }} as started_at_ist,
    {{ ist_date('raised_at') }} as event_date,
    resolved_at as ended_at_utc,
    extract(epoch from coalesce(resolved_at, last_seen_at) - raised_at)::float / 60 as duration_minutes,
    -- SEBI's definition for brokers: a disruption of five minutes or more
    severity = 'critical'
    and coalesce(resolved_at, last_seen_at) - raised_at >= interval '5 minutes' as technical_glitch,
    source as component,
    severity,
    title as impact,
    detail,
    count as occurrences,
    acknowledged_by,
    resolved_at is null as open
from {{ source('raw', 'alerts') }}
