select
    group_id,
    user_id,
    account_id,
    symbol,
    trade_id,
    client_order_id,
    side,
    price,
    quantity,
    price * quantity as notional,
    fee,
    fee_currency,
    market_time,
    received_at
from {{ source('raw', 'fills') }}
