-- Labels, Indian time and the venue only; the columns are those of the trail.
select
    a.*,
    {{ ist('a.event_ts') }} as event_ts_ist,
    {{ ist_date('a.event_ts') }} as event_date,
    coalesce(a.exchange, c.venue, 'unknown') as exchange_or_venue,
    coalesce(c.account_kind, 'none') as account_kind,
    {{ data_label('d.kind') }} as data_label
from {{ source('raw', 'audit_log') }} as a
left join {{ ref('stg_accounts') }} as c using (group_id, user_id, account_id)
left join {{ source('raw', 'datasets') }} as d on d.dataset_id = a.dataset_id
