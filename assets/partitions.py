"""Partitions: by day (compliance works in Indian dates), by user group, by model version."""

import dagster as dg

INDIA = "Asia/Kolkata"
days = dg.DailyPartitionsDefinition(start_date="2026-01-01", timezone=INDIA, end_offset=1)
"""`end_offset=1`: today's partition exists, because the day's records are also written during the day."""
groups = dg.DynamicPartitionsDefinition(name="user_group")
versions = dg.DynamicPartitionsDefinition(name="model_version")
