-- A row a deployment: which version of which strategy served in which role, who decided it and under which configuration.
select
    d.deployment_id,
    d.strategy_id,
    coalesce(c.config ->> 'name', d.strategy_id) as name,
    coalesce(c.config ->> 'class', 'unclassified') as class,
    coalesce(c.config ->> 'owner', 'unassigned') as owner,
    c.config ->> 'description' as description,
    c.config -> 'risk' as risk_parameters,
    c.revision as config_revision,
    d.role,
    d.version_id as version,
    v.kind as model_kind,
    v.code_version,
    v.artifact_sha256,
    s.data_label,
    d.dataset_id,
    d.decided_by as approved_by,
    d.reason,
    d.from_time as serves_from,
    d.to_time as serves_to,
    d.created_at as registered_at_utc,
    {{ ist_date('d.created_at') }} as registered_date,
    c.config ->> 'registration_ref' as registration_ref,
    v.data_version as backtest_ref
from {{ ref('stg_deployments') }} as d
left join {{ ref('stg_model_versions') }} as v on v.version_id = d.version_id
left join {{ ref('stg_datasets') }} as s on s.dataset_id = d.dataset_id
left join {{ ref('stg_strategy_configs') }} as c
    on
        c.strategy_id = d.strategy_id
        and d.created_at >= c.changed_at
        and d.created_at < coalesce(c.superseded_at, 'infinity')
