"""Zerodha through Kite Connect v3.

Read `transport.py` (one call, one typed answer), `errors.py` (what a refusal means), `markets/kite_orders.py` (what may be
sent), then `venue.py` (one account behind the order door). Beside the door: `orders.py` and `gtt.py` write, `books.py`,
`quotes.py` and `costs.py` read, `ticker.py` streams what `packets.py` decodes, `limits.py` counts, `login.py` and
`vaulted.py` keep the day's session, `fno.py` chooses and leaves derivatives, `preflight.py` checks before the open.
"""
