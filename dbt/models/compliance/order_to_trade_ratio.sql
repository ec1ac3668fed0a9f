with requests as (
    select
        a.event_date,
        a.group_id,
        a.account_kind,
        a.data_label,
        a.exchange_or_venue as segment,
        coalesce(a.strategy_id, 'none') as strategy_id,
        a.event_type,
        -- within 0.75 % of the last traded price: exempt from the exchange's count
        a.event_type = 'SEND' and abs(a.price / nullif(i.reference_price, 0) - 1) <= 0.0075 as exempt
    from {{ ref('stg_audit_log') }} as a
    left join {{ ref('stg_intents') }} as i using (group_id, user_id, intent_id)
    where a.event_type in ('SEND', 'MODIFY_REQ', 'CANCEL_REQ', 'FILL')
),

counted as (
    select
        event_date,
        group_id,
        segment,
        strategy_id,
        account_kind,
        data_label,
        count(*) filter (where event_type = 'SEND') as entries,
        count(*) filter (where event_type = 'MODIFY_REQ') as modifications,
        count(*) filter (where event_type = 'CANCEL_REQ') as cancels,
        count(*) filter (where event_type = 'FILL') as trades,
        count(*) filter (where exempt) as exempt_orders
    from requests
    group by 1, 2, 3, 4, 5, 6
),

ratios as (
    select
        *,
        (entries + modifications + cancels)::float / nullif(trades, 0) as ratio_gross,
        (entries + modifications + cancels - exempt_orders)::float / nullif(trades, 0) as ratio_net
    from counted
)

select
    event_date as trade_date,
    group_id,
    segment,
    strategy_id,
    account_kind,
    data_label,
    entries,
    modifications,
    cancels,
    trades,
    exempt_orders,
    ratio_gross,
    ratio_net,
    case
        when ratio_net is null then 'no trades'
        when ratio_net < 50 then '<50'
        when ratio_net < 250 then '50-250'
        when ratio_net < 500 then '250-500'
        when ratio_net < 2000 then '500-2000'
        else '>=2000'
    end as slab,
    count(*) filter (where ratio_net >= 2000) over (
        partition by group_id, segment, strategy_id, account_kind, data_label
        order by event_date range between interval '29 days' preceding and current row
    ) as instances_2000_30d
from ratios
