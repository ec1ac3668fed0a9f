"""The Dagster assets, a module a group: market_data, features, models, evaluation, execution, compliance, marts.

Bodies are thin: one call into `trading_platform`, then metadata for the person who looks at the asset in the UI.
Read `platform.py` first: it is the one resource that all assets share.
"""
