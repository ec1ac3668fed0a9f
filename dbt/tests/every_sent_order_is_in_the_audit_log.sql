-- An order that reached a venue has its SEND entry in the trail.
select o.group_id, o.client_order_id
from {{ ref('stg_orders') }} as o
where
    o.sent_at is not null
    and not exists (
        select
        from {{ ref('stg_audit_log') }} as a
        where a.group_id = o.group_id and a.event_type = 'SEND' and a.client_order_id = o.client_order_id
    )
