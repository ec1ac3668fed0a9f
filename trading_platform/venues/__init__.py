"""Doors to exchanges: one port for orders, an adapter a venue. Read `port.py` first."""
