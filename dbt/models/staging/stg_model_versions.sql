select
    version_id,
    dataset_id,
    strategy_id,
    parent_id,
    kind,
    origin,
    data_version,
    code_version,
    trained_from,
    trained_to,
    rows as training_rows,
    metrics,
    artifact_sha256,
    certified,
    expires_at,
    created_at
from {{ source('raw', 'model_versions') }}
