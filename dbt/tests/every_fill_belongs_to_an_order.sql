select f.group_id, f.user_id, f.trade_id, f.client_order_id
from {{ ref('stg_fills') }} as f
left join {{ ref('stg_orders') }} as o using (group_id, user_id, client_order_id)
where o.client_order_id is null
