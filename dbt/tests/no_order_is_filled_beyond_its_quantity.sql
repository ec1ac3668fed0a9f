select o.group_id, o.client_order_id, o.quantity, sum(f.quantity) as filled
from {{ ref('stg_orders') }} as o
inner join {{ ref('stg_fills') }} as f using (group_id, user_id, client_order_id)
group by o.group_id, o.client_order_id, o.quantity
having sum(f.quantity) > o.quantity
