"""Logs, traces, metrics, heartbeats and alerts: how people and machines see what the platform does.

Every process calls `logs.configure(service, settings)` and `traces.configure_tracing(service, settings)` on its first
lines. What happened goes to the log, how long it took to a span, how often to a metric, and what a person must know
to an alert. docs/observability.md lists the fields, spans, metrics, alerts and ports. Read `logs.py` first.
"""
