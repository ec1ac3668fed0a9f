select
    strategy_id,
    revision,
    config,
    changed_by,
    changed_at,
    lead(changed_at) over (partition by strategy_id order by revision) as superseded_at
from {{ source('raw', 'strategy_configs') }}
