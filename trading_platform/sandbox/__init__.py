"""An exchange of one's own, which official clients take for the real one: paper trading with real requests.

Read `exchange.py` first, then `events.py`. `orders`, `books`, `liquidity`, `matching`, `rules`, `journal` and `clock` know
no venue's protocol; `binance/` is a surface on top of them, and a second venue's surface goes beside it. Whatever a client
is told was in the journal, on disk, before.
"""
