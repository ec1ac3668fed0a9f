{# What kind of data a row stems from, in the words shown to people. Replayed and synthetic figures say so everywhere. #}
{% macro data_label(dataset_kind) -%}
    case {{ dataset_kind }}
        when 'venue' then 'live market'
        when 'files' then 'replayed'
        when 'synthetic' then 'synthetic'
        else 'no market data'
    end
{%- endmacro %}
