"""What an account has, as Kite shows it: profile, funds, positions of the day, holdings.

Shares bought today are positions; from the next trading day on they are holdings. Futures stay positions until they are
closed or expire. Everything is paid in full here: no leverage, and nothing is sold short.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from trading_platform.markets.contracts import Contract, ContractBook
from trading_platform.sandbox.books import Account
from trading_platform.sandbox.exchange import Exchange
from trading_platform.sandbox.kite.door import Call, Door
from trading_platform.sandbox.kite.errors import bad_input

IST = ZoneInfo("Asia/Kolkata")
ZERO = Decimal(0)


@dataclass
class Held:
    """One contract of an account: units and average cost, and what was traded today."""

    contract: Contract
    product: str = "CNC"
    units: Decimal = ZERO
    cost: Decimal = ZERO
    bought: Decimal = ZERO
    bought_value: Decimal = ZERO
    sold: Decimal = ZERO
    sold_value: Decimal = ZERO

    @property
    def average(self) -> Decimal:
        return self.cost / self.units if self.units else ZERO

    @property
    def today(self) -> Decimal:
        return self.bought - self.sold


@dataclass
class Portfolio:
    """Handlers of /user and /portfolio."""

    exchange: Exchange
    book: ContractBook
    door: Door

    def routes(self) -> Iterator[Any]:
        route = self.door.route
        yield route("GET", "/user/profile", self.profile)
        yield route("GET", "/user/margins", self.margins)
        yield route("GET", "/user/margins/{segment}", self.margins_of)
        yield route("GET", "/portfolio/positions", self.positions)
        yield route("GET", "/portfolio/holdings", self.holdings)

    def profile(self, call: Call) -> dict[str, Any]:
        return profile_of(call.account)

    def margins(self, call: Call) -> dict[str, Any]:
        return {"equity": self._funds(call.account, rupees=True), "commodity": self._funds(call.account, rupees=False)}

    def margins_of(self, call: Call) -> dict[str, Any]:
        segment = call.path["segment"]
        if segment not in ("equity", "commodity"):
            raise bad_input("Invalid `segment`.")
        return self._funds(call.account, rupees=segment == "equity")

    def positions(self, call: Call) -> dict[str, Any]:
        rows = [
            self._position(held) for held in self._held(call.account).values()
            if (held.contract.is_derivative and held.units) or held.bought or held.sold
        ]  # fmt: skip
        return {"net": rows, "day": [row for row in rows if row["day_buy_quantity"] or row["day_sell_quantity"]]}

    def holdings(self, call: Call) -> list[dict[str, Any]]:
        return [
            self._holding(held) for held in self._held(call.account).values()
            if not held.contract.is_derivative and held.units - held.today > 0
        ]  # fmt: skip

    # --- inside ------------------------------------------------------------------------------------------------------

    def _today(self) -> date:
        return datetime.fromtimestamp(self.exchange.now / 1_000, IST).date()

    def _held(self, account: Account) -> dict[str, Held]:
        """Everything that was ever traded, by average cost."""
        today, found = self._today(), dict[str, Held]()
        for trade in account.trades:
            terms = self.exchange.books.orders[trade.order_id].request.terms
            held = found.setdefault(
                trade.symbol, Held(self.book.get(terms["exchange"], trade.symbol), terms["product"])
            )
            value, is_today = (
                trade.price * trade.quantity,
                datetime.fromtimestamp(trade.time / 1_000, IST).date() == today,
            )
            if trade.side == "BUY":
                held.units, held.cost = held.units + trade.quantity, held.cost + value
                held.bought += trade.quantity if is_today else ZERO
                held.bought_value += value if is_today else ZERO
            else:
                held.cost -= held.average * trade.quantity
                held.units -= trade.quantity
                held.sold += trade.quantity if is_today else ZERO
                held.sold_value += value if is_today else ZERO
        return found

    def _last(self, contract: Contract) -> float:
        market = self.exchange.markets[contract.tradingsymbol]
        return float(market.last or 0)

    def _funds(self, account: Account, *, rupees: bool) -> dict[str, Any]:
        balance = account.balance("INR")
        free, locked = (float(balance.free), float(balance.locked)) if rupees else (0.0, 0.0)
        futures = [each for each in self._held(account).values() if each.contract.is_derivative] if rupees else []
        paid = float(sum((each.cost for each in futures), ZERO))
        return {
            "enabled": rupees,
            "net": free,
            "available": {
                "adhoc_margin": 0, "cash": free + locked, "opening_balance": free + locked, "live_balance": free,
                "collateral": 0, "intraday_payin": 0,
            },
            "utilised": {
                "debits": locked + paid, "exposure": 0, "m2m_realised": 0, "m2m_unrealised": 0, "option_premium": 0,
                "payout": 0, "span": paid, "holding_sales": 0, "turnover": 0, "liquid_collateral": 0,
                "stock_collateral": 0, "delivery": locked,
            },
        }  # fmt: skip

    def _position(self, held: Held) -> dict[str, Any]:
        contract, last = held.contract, self._last(held.contract)
        quantity = int(held.units if contract.is_derivative else held.today)
        average = float(held.average) if contract.is_derivative or quantity > 0 else (
            float(held.sold_value / held.sold) if held.sold else 0.0
        )  # fmt: skip
        value = float(held.sold_value - held.bought_value)
        pnl = value + quantity * last if not contract.is_derivative else (last - average) * quantity
        overnight = int(held.units - held.today) if contract.is_derivative else 0
        day = {
            "buy_quantity": int(held.bought), "buy_price": float(held.bought_value / held.bought) if held.bought else 0,
            "buy_value": float(held.bought_value), "sell_quantity": int(held.sold),
            "sell_price": float(held.sold_value / held.sold) if held.sold else 0, "sell_value": float(held.sold_value),
        }  # fmt: skip
        return {
            "tradingsymbol": contract.tradingsymbol, "exchange": contract.exchange,
            "instrument_token": contract.instrument_token, "product": held.product, "quantity": quantity,
            "overnight_quantity": overnight, "multiplier": 1, "average_price": average, "close_price": last,
            "last_price": last, "value": value, "pnl": pnl, "m2m": pnl, "unrealised": pnl, "realised": 0, **day,
            "buy_m2m": day["buy_value"], "sell_m2m": day["sell_value"],
            **{f"day_{name}": amount for name, amount in day.items()},
        }  # fmt: skip

    def _holding(self, held: Held) -> dict[str, Any]:
        contract, last, units = held.contract, self._last(held.contract), int(held.units - held.today)
        average = float(held.average)
        nothing_on_margin = {"quantity": 0, "used_quantity": 0, "average_price": 0, "value": 0, "initial_margin": 0}
        return {
            "tradingsymbol": contract.tradingsymbol, "exchange": contract.exchange,
            "instrument_token": contract.instrument_token, "isin": "", "product": "CNC", "price": 0, "quantity": units,
            "used_quantity": int(held.sold), "t1_quantity": 0, "realised_quantity": units, "authorised_quantity": units,
            "authorised_date": f"{self._today():%Y-%m-%d} 00:00:00", "authorisation": {}, "opening_quantity": units,
            "short_quantity": 0, "collateral_quantity": 0, "collateral_type": "", "discrepancy": False,
            "average_price": average, "last_price": last, "close_price": last, "pnl": (last - average) * units,
            "day_change": 0, "day_change_percentage": 0, "mtf": nothing_on_margin,
        }  # fmt: skip


def profile_of(account: Account) -> dict[str, Any]:
    name = account.account_id
    return {
        "user_id": name[:6].upper(), "user_type": "individual", "email": f"{name}@sandbox.example",
        "user_name": name, "user_shortname": name[:10], "broker": "ZERODHA", "exchanges": ["NSE", "NFO"],
        "products": ["CNC", "NRML"], "order_types": ["MARKET", "LIMIT", "SL", "SL-M"], "avatar_url": None,
        "meta": {"demat_consent": "consent"},
    }  # fmt: skip
