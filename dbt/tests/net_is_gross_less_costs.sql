select trade_id, gross_pnl, costs, net_pnl
from {{ ref('fct_trades') }}
-- each is rounded to twelve places on its own
where abs(net_pnl - (gross_pnl - costs)) > 0.000000001
