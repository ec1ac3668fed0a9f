"""One way to make a ccxt client of Binance spot, for market data and for orders, for the real venue and the sandbox."""

import ssl
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ccxt.async_support import binance


def binance_client(
    base_url: str | None,
    api_key: str = "",
    secret: str = "",
    *,
    rate_limit: bool = True,
    timeout_seconds: float = 10.0,
    markets_from: "binance | None" = None,
) -> "binance":
    """A spot-only client; the caller closes it (`await client.close()`).

    Parameters
    ----------
    base_url
        `http://127.0.0.1:9000` sends *every* request there, including those to endpoints the platform does not use:
        a client meant for the sandbox has no address of the real exchange left in it. None: the real exchange.
    rate_limit
        Let ccxt pace the requests. Off where the caller has an order budget of its own.
    markets_from
        A client whose market table is loaded: shared, it saves 9 MB a client.
    """
    from ccxt.async_support import binance

    config: dict[str, Any] = {
        "apiKey": api_key,
        "secret": secret,
        "enableRateLimit": rate_limit,
        "timeout": round(timeout_seconds * 1000),
        "options": {
            "defaultType": "spot",
            "fetchMarkets": {"types": ["spot"]},
            "fetchCurrencies": False,
            "fetchMargins": False,
            "warnOnFetchOpenOrdersWithoutSymbol": False,
        },
    }
    client = binance(config)
    client.ssl_context = _tls()
    client.timeout_on_exit = (
        0  # a quarter of a second a client: an engine of a thousand accounts would take minutes to end
    )
    if base_url is not None:
        _point_at(client, base_url.rstrip("/"))
    if markets_from is not None:
        client.set_markets_from_exchange(markets_from)
    return client


@cache
def _tls() -> ssl.SSLContext:
    """One for all clients of the process: reading the certificates anew takes each of them 10 to 30 ms and a megabyte."""
    import certifi

    return ssl.create_default_context(cafile=certifi.where())


def _point_at(client: "binance", base_url: str) -> None:
    addresses = client.urls["api"]
    for name in addresses:
        version = {"public": "/api/v3", "private": "/api/v3", "v1": "/api/v1"}.get(name, f"/{name}")
        addresses[name] = base_url + version
