"""Kite Connect v3 on the sandbox's exchange, with a port of its own: the official client needs only another root.

Read `door.py` first (the way of a request), then `orders.py`.
"""
