"""Point-in-time features and market conditions: one declarative definition, the same kernel for batch and live.

Read `definition.py` first (what the features are), then `stream.py` (how to get them), then `kernel.py` (how one bar
becomes one row). `lookahead.py` checks any feature function for knowledge of the future.
"""
