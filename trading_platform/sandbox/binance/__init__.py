"""Binance spot as its clients know it: REST under /api/v3, streams under /ws and /stream."""
