with serving as (
    select
        version_id,
        max(role) filter (where to_time is null) as serves_as,
        min(from_time) as first_served,
        max(to_time) filter (where to_time is not null) as last_withdrawn
    from {{ ref('stg_deployments') }}
    group by version_id
)

select
    v.version_id,
    v.dataset_id,
    d.data_label,
    v.strategy_id,
    v.parent_id,
    v.kind,
    v.origin,
    v.training_rows,
    v.trained_from,
    v.trained_to,
    {% for name in ['base_rate', 'accuracy', 'log_loss', 'brier', 'ece', 'precision_at_80', 'coverage_at_80'] -%}
    case jsonb_typeof(v.metrics -> '{{ name }}') when 'number' then (v.metrics ->> '{{ name }}')::float end as {{ name }},
    {% endfor -%}
    v.certified,
    s.serves_as,
    s.first_served,
    s.last_withdrawn,
    v.expires_at,
    v.code_version,
    v.data_version,
    v.artifact_sha256,
    v.created_at
from {{ ref('stg_model_versions') }} as v
left join {{ ref('stg_datasets') }} as d on d.dataset_id = v.dataset_id
left join serving as s on s.version_id = v.version_id
