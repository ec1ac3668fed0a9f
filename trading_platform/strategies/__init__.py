"""Strategies: versioned definitions, and the scorer that turns closed bars into signals.

Read `definition.py` first (what a strategy is), then `barrier_long.py` (the one that ships), `signals.py` (what a
version says of a bar) and `scorer.py` (the service that writes it down).
"""
