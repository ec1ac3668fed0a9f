{# Identifiers as they leave the platform: enough to tell two apart, not enough to know whose they are. #}
{% macro masked(column) -%}
    case
        when {{ column }} is null then null
        when length({{ column }}) > 10
            then coalesce(substring({{ column }} from '^[a-z]+_'), '') || '***' || right({{ column }}, 6)
        when length({{ column }}) > 4 then left({{ column }}, 2) || '***' || right({{ column }}, 2)
        else left({{ column }}, 1) || '***'
    end
{%- endmacro %}

{% macro masked_email(column) -%}
    regexp_replace({{ column }}, '^(.)[^@]*(@.*)?$', '\1***\2')
{%- endmacro %}

{# `trader:u_0123456789` -> `trader:u_***456789`. Staff (compliance, admin, engineer) and processes answer by name. #}
{% macro masked_actor(column) -%}
    case
        when {{ column }} like 'trader:%'
            then 'trader:' || {{ masked("substring(" ~ column ~ " from 8)") }}
        else {{ column }}
    end
{%- endmacro %}
