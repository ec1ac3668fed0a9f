"""History played through the code that trades: event-exact, compiled, criticised, and compared with paper trading.

Read `kernel.py` first (what happens inside one bar), then `simulation.py` (a run and its figures), `charges.py` (what
each order costs), `rules.py` (strategies as arrays), `criticism.py` (whether a result can be believed) and `parity.py`
(where paper trading differed and why).
"""
