{# Indian Standard Time of a timestamptz, as a timestamp without zone; the day of a record is the Indian one. #}
{% macro ist(column) -%} ({{ column }} at time zone 'Asia/Kolkata') {%- endmacro %}

{% macro ist_date(column) -%} ({{ column }} at time zone 'Asia/Kolkata')::date {%- endmacro %}
