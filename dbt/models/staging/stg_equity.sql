select
    e.group_id,
    e.user_id,
    e.account_id,
    e.market_time,
    e.cash,
    e.positions_value,
    e.equity,
    e.currency
from {{ source('raw', 'equity') }} as e
