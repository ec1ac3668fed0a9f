-- What leaves the platform shows no whole account id.
select l.group_id, l.account_ref
from (select distinct group_id, account_ref from {{ ref('order_audit_log') }}) as l
inner join {{ ref('stg_accounts') }} as a on a.account_id = l.account_ref
