"""Zerodha through Kite Connect v3.

Read `transport.py` (one call, one typed answer), `errors.py` (what a refusal means), `markets/kite_orders.py` (what may be sent), then
`venue.py` (one account behind the order door).
"""
