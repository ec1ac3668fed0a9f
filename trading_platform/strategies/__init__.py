"""Strategies: versioned definitions, and the scorer that turns closed bars into signals.

Read `definition.py` for what a strategy is, `barrier_long.py` for the one that ships, `scorer.py` for the service.
"""
