select
    a.group_id,
    a.user_id,
    a.account_id,
    a.venue,
    a.kind as account_kind,
    a.dataset_id,
    a.currency,
    a.created_at,
    a.closed_at
from {{ source('raw', 'accounts') }} as a
