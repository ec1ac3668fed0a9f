select
    dataset_id,
    kind as dataset_kind,
    {{ data_label('kind') }} as data_label,
    venue,
    source,
    interval_seconds,
    replay_from
from {{ source('raw', 'datasets') }}
