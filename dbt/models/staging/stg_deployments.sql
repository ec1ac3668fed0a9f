select
    deployment_id,
    dataset_id,
    strategy_id,
    role,
    version_id,
    from_time,
    to_time,
    reason,
    decided_by,
    created_at
from {{ source('raw', 'deployments') }}
