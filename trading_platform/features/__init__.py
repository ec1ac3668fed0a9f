"""Point-in-time features and market conditions: one declarative definition, the same kernel for batch and live.

Read `definition.py` first (what the features are), then `kernel.py` (how one bar is turned into one row).
"""
