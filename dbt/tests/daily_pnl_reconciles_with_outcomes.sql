-- Profit and loss is neither lost nor doubled between the books and the mart, by group and currency.
with booked as (
    select group_id, currency, sum(net_pnl) as net, sum(gross_pnl) as gross, sum(costs) as costs, count(*) as trades
    from {{ source('raw', 'outcomes') }}
    group by group_id, currency
),

shown as (
    select group_id, currency, sum(net_pnl) as net, sum(gross_pnl) as gross, sum(costs) as costs, sum(trades) as trades
    from {{ ref('fct_daily_pnl') }}
    group by group_id, currency
)

select *
from booked
full join shown using (group_id, currency)
where (booked.net, booked.gross, booked.costs, booked.trades)
    is distinct from (shown.net, shown.gross, shown.costs, shown.trades)
