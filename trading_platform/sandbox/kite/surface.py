"""Kite Connect as one web application over an exchange."""

from dataclasses import dataclass

from aiohttp import web

from trading_platform.markets.contracts import ContractBook
from trading_platform.sandbox.exchange import Exchange
from trading_platform.sandbox.kite.costs import Costs
from trading_platform.sandbox.kite.door import Door, Limiter, refusal
from trading_platform.sandbox.kite.errors import KiteError
from trading_platform.sandbox.kite.login import Login
from trading_platform.sandbox.kite.orders import Orders
from trading_platform.sandbox.kite.portfolio import Portfolio
from trading_platform.sandbox.kite.quotes import Quotes
from trading_platform.sandbox.kite.sessions import Sessions
from trading_platform.sandbox.kite.ticker import Ticker

LARGEST_BODY = 1 << 18
REDIRECT = "http://127.0.0.1/"


@dataclass
class Kite:
    """The application, and what must be told when the market moved."""

    app: web.Application
    sessions: Sessions
    orders: Orders
    ticker: Ticker

    def after_step(self) -> None:
        self.orders.end_of_session()
        self.ticker.after_step()


def surface(exchange: Exchange, book: ContractBook, *, limits: bool, redirect: str = REDIRECT) -> Kite:
    """`limits`: count requests as the broker does. `redirect`: where a log-in goes back to."""
    sessions = Sessions(exchange.books)
    door = Door(exchange, sessions, Limiter(on=limits))
    orders, quotes = Orders(exchange, book, door), Quotes(exchange, book, door)
    ticker = Ticker(exchange, book, sessions, orders, quotes)
    door.on_write = ticker.tell_orders
    app = web.Application(client_max_size=LARGEST_BODY, middlewares=[_unknown_routes])
    app.add_routes(
        [
            web.get("/", ticker.connect),
            *Login(exchange, sessions, redirect).routes(),
            *Portfolio(exchange, book, door).routes(),
            *quotes.routes(),
            *Costs(exchange, book, door).routes(),
            *orders.routes(),
        ]
    )
    return Kite(app, sessions, orders, ticker)


@web.middleware
async def _unknown_routes(request: web.Request, handler: object) -> web.StreamResponse:
    """What no handler answers, in the broker's envelope."""
    try:
        return await handler(request)  # type: ignore[operator,no-any-return]
    except web.HTTPNotFound:
        return refusal(KiteError(404, "GeneralException", "Route not found"))
    except web.HTTPMethodNotAllowed:
        return refusal(KiteError(405, "GeneralException", "Requested method not allowed"))
    except UnicodeDecodeError:
        return refusal(KiteError(400, "InputException", "The body is not UTF-8."))
    except web.HTTPRequestEntityTooLarge:
        return refusal(KiteError(400, "InputException", "The body is too large."))
