select trade_id, gross_pnl, costs, net_pnl
from {{ ref('fct_trades') }}
where net_pnl <> gross_pnl - costs
