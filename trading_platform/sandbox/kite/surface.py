"""Kite Connect as one web application over an exchange."""

from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from trading_platform.markets.contracts import ContractBook
from trading_platform.sandbox.candles import Row
from trading_platform.sandbox.exchange import Exchange
from trading_platform.sandbox.faults import Faults, faulty
from trading_platform.sandbox.kite.alerts import Alerts
from trading_platform.sandbox.kite.bands import Bands
from trading_platform.sandbox.kite.costs import Costs
from trading_platform.sandbox.kite.desk import Desk, in_words
from trading_platform.sandbox.kite.door import Door, Limiter, refusal
from trading_platform.sandbox.kite.errors import KiteError
from trading_platform.sandbox.kite.login import Login
from trading_platform.sandbox.kite.mischief import Mischief
from trading_platform.sandbox.kite.orders import Orders
from trading_platform.sandbox.kite.portfolio import Portfolio
from trading_platform.sandbox.kite.postbacks import Postbacks
from trading_platform.sandbox.kite.quotes import Quotes
from trading_platform.sandbox.kite.rows import Rows
from trading_platform.sandbox.kite.schedule import Schedule
from trading_platform.sandbox.kite.sessions import Sessions
from trading_platform.sandbox.kite.ticker import Ticker
from trading_platform.sandbox.kite.triggers import Triggers

LARGEST_BODY = 1 << 18
REDIRECT = "http://127.0.0.1/"
NOT_SERVED = ("/mf", "/session/refresh_token")


@dataclass
class Kite:
    """The application, what must be told when the market moved, and what control routes reach into."""

    app: web.Application
    sessions: Sessions
    desk: Desk
    schedule: Schedule
    triggers: Triggers
    alerts: Alerts
    mischief: Mischief
    postbacks: Postbacks
    ticker: Ticker

    def after_step(self) -> None:
        """Everything that market time brings about, then the ticks."""
        self.triggers.after_step()
        self.alerts.after_step()
        self.schedule.after_step()
        self.desk.follow_up()
        self.ticker.after_step()


def surface(
    exchange: Exchange, book: ContractBook, *, limits: bool, redirect: str = REDIRECT, faults: Faults | None = None,
    days: Mapping[str, list[Row]] | None = None,
) -> Kite:  # fmt: skip
    """`limits`: count requests as the broker does. `redirect`: where a log-in goes back to. `days`: older daily bars."""
    faults = faults if faults is not None else Faults()
    sessions, bands = Sessions(exchange.books), Bands(exchange, book)
    door = Door(exchange, sessions, Limiter(on=limits), in_words)
    desk = Desk(exchange, book, bands)
    rows = Rows(desk.contracts)
    mischief = Mischief(exchange, rows, faults)
    portfolio, quotes = Portfolio(exchange, desk, door), Quotes(exchange, book, bands, door, days or {})
    orders = Orders(exchange, desk, rows, portfolio, door, mischief)
    triggers, alerts = Triggers(exchange, desk, door), Alerts(exchange, desk, quotes, door)
    postbacks = Postbacks()
    ticker = Ticker(exchange, book, sessions, rows, quotes, mischief, postbacks, faults)
    schedule = Schedule(exchange, book, bands, desk)
    app = web.Application(
        client_max_size=LARGEST_BODY, middlewares=[faulty(faults, "kite", sessions.roll_over), _unknown_routes]
    )
    holdings_page = "/connect/portfolio/authorize/holdings/{api_key}/{request_id}"
    app.add_routes(
        [
            web.get("/", ticker.connect),
            web.get(holdings_page, portfolio.authorisation_page),
            web.post(holdings_page, portfolio.authorisation_page),
            *Login(exchange, sessions, redirect).routes(),
            *portfolio.routes(),
            *quotes.routes(),
            *Costs(exchange, book, door).routes(),
            *triggers.routes(),
            *alerts.routes(),
            *orders.routes(),
        ]
    )
    return Kite(app, sessions, desk, schedule, triggers, alerts, mischief, postbacks, ticker)


@web.middleware
async def _unknown_routes(request: web.Request, handler: object) -> web.StreamResponse:
    """What no handler answers, in the broker's envelope."""
    if request.path.startswith(NOT_SERVED):
        return refusal(KiteError(400, "GeneralException", f"{request.path} is not served by this sandbox."))
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
