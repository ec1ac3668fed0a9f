"""Binance's spot API on top of the exchange. Read `gateway.py` first: the way of every request.

`order_types.py` spells orders as Binance does, `shapes.py` has the answers field for field, `market_data.py` and
`trading.py` the routes, `streams.py` the WebSocket side. Sources: github.com/binance/binance-spot-api-docs, 2026-07.
"""
