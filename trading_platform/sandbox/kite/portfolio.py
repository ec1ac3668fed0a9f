"""What an account has, as Kite shows it: profile, funds, positions of the day, holdings, and turning one into another.

Shares bought today for delivery are positions; from the next trading day on they are holdings. Everything else stays a
position until it is closed or its contract ends.
"""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from aiohttp import web

from trading_platform.markets.contracts import Contract
from trading_platform.sandbox.books import Account
from trading_platform.sandbox.events import Converted, Kept
from trading_platform.sandbox.exchange import Exchange
from trading_platform.sandbox.kite.desk import Desk
from trading_platform.sandbox.kite.door import Call, Door
from trading_platform.sandbox.kite.errors import KiteError, bad_input, missing
from trading_platform.sandbox.kite.forms import whole
from trading_platform.sandbox.kite.margins import margin, margins_by
from trading_platform.sandbox.kite.rows import user_id
from trading_platform.sandbox.margin_ledger import DELIVERY, RUPEES, Position, day_of, margin_for
from trading_platform.sandbox.orders import ZERO, Side

IST = ZoneInfo("Asia/Kolkata")
INTO_SHARES = frozenset({"CNC", "MIS"})
INTO_DERIVATIVES = frozenset({"NRML", "MIS"})


@dataclass
class Portfolio:
    """Handlers of /user and /portfolio."""

    exchange: Exchange
    desk: Desk
    door: Door

    def routes(self) -> Iterator[Any]:
        route = self.door.route
        yield route("GET", "/user/profile", self.profile)
        yield route("GET", "/user/profile/full", self.full_profile)
        yield route("GET", "/user/margins", self.margins)
        yield route("GET", "/user/margins/{segment}", self.margins_of)
        yield route("GET", "/portfolio/positions", self.positions)
        yield route("PUT", "/portfolio/positions", self.convert)
        yield route("GET", "/portfolio/holdings", self.holdings)
        yield route("GET", "/portfolio/holdings/summary", self.summary)
        yield route("GET", "/portfolio/holdings/compact", self.compact)
        yield route("GET", "/portfolio/holdings/auctions", self.auctions)
        yield route("POST", "/portfolio/holdings/authorise", self.authorise)

    def profile(self, call: Call) -> dict[str, Any]:
        return profile_of(call.account)

    def full_profile(self, call: Call) -> dict[str, Any]:
        return profile_of(call.account) | {
            "twofa_type": "totp", "phone": "*0000", "bank_accounts": [{"name": "Sandbox Bank", "branch": "", "account": "*0000"}],
            "dp_ids": ["0000000000000000"], "pan": "*000A", "tags": [], "password_timestamp": "1970-01-01 00:00:00",
            "twofa_timestamp": "1970-01-01 00:00:00",
            "meta": {"poa": "electronic", "silo": "sandbox", "account_blocks": []},
        }  # fmt: skip

    def margins(self, call: Call) -> dict[str, Any]:
        return {"equity": self._funds(call.account, rupees=True), "commodity": self._funds(call.account, rupees=False)}

    def margins_of(self, call: Call) -> dict[str, Any]:
        segment = call.path["segment"]
        if segment not in ("equity", "commodity"):
            raise bad_input("Invalid `segment`.")
        return self._funds(call.account, rupees=segment == "equity")

    def positions(self, call: Call) -> dict[str, Any]:
        shown = [each for each in self._all(call.account) if _is_position(each)]
        rows = [self._position(each) for each in shown]
        return {"net": rows, "day": [row for row in rows if row["day_buy_quantity"] or row["day_sell_quantity"]]}

    def convert(self, call: Call) -> bool:
        """PUT /portfolio/positions: part of a position into another product, at its cost."""
        for name in (
            "exchange", "tradingsymbol", "transaction_type", "position_type", "quantity", "old_product", "new_product",
        ):  # fmt: skip
            if not call.fields.get(name):
                raise missing(name)
        contract = self.desk.contract(call.fields["exchange"], call.fields["tradingsymbol"])
        old, new = call.fields["old_product"], call.fields["new_product"]
        allowed = INTO_DERIVATIVES if contract.is_derivative else INTO_SHARES
        if {old, new} - allowed or old == new:
            raise bad_input(f"A position of {contract.exchange} is converted between {' and '.join(sorted(allowed))}.")
        quantity, buys = Decimal(whole(call.fields, "quantity") or 0), call.fields["transaction_type"] == "BUY"
        self._check_conversion(call, contract, old, new, quantity, buys=buys)
        units = quantity if buys else -quantity
        self.exchange.record(self._conversion(call.account, contract, old, new, units))
        return True

    def holdings(self, call: Call) -> list[dict[str, Any]]:
        return [self._holding(call.account, each) for each in self._all(call.account) if _is_holding(each)]

    def summary(self, call: Call) -> dict[str, Any]:
        rows = self.holdings(call)
        invested = sum(row["average_price"] * row["quantity"] for row in rows)
        value = sum(row["last_price"] * row["quantity"] for row in rows)
        today = sum(row["day_change"] * row["quantity"] for row in rows)
        before = value - today
        return {
            "total_pnl": value - invested, "total_pnl_percent": (value - invested) / invested * 100 if invested else 0.0,
            "today_pnl": today, "today_pnl_percent": today / before * 100 if before else 0.0,
            "invested_amount": invested, "current_value": value,
        }  # fmt: skip

    def compact(self, call: Call) -> list[dict[str, Any]]:
        names = ("exchange", "tradingsymbol", "instrument_token", "t1_quantity", "quantity")
        return [{name: row[name] for name in names} for row in self.holdings(call)]

    def auctions(self, call: Call) -> list[dict[str, Any]]:
        """What the exchange auctions today and the account holds."""
        by_symbol = {symbol: number for number, symbol in self.desk.auctions.items()}
        left_out = {"used_quantity", "authorisation", "short_quantity", "mtf"}
        return [
            {name: value for name, value in row.items() if name not in left_out}
            | {"auction_number": by_symbol[row["tradingsymbol"]]}
            for row in self.holdings(call)
            if row["tradingsymbol"] in by_symbol
        ]

    # --- authorisation of sales ---------------------------------------------------------------------------------------

    def authorise(self, call: Call) -> dict[str, str]:
        """A request that the holder confirms on a page of the depository: /connect/portfolio/authorize/holdings/…"""
        number = secrets.token_urlsafe(24)
        asked = list(zip(call.each("isin"), call.each("quantity"), strict=False))
        self.exchange.record(Kept(call.account.account_id, "authorisations", number, {"asked": asked, "day": None}))
        return {"request_id": number}

    async def authorisation_page(self, request: web.Request) -> web.Response:
        """GET shows the page, POST is the holder's consent for the market's day."""
        account = self.exchange.books.by_key.get(request.match_info["api_key"])
        number = request.match_info["request_id"]
        if account is None or number not in account.kept.get("authorisations", {}):
            return web.Response(
                status=404, text="No such authorisation: ask for one with POST /portfolio/holdings/authorise"
            )
        if request.method == "POST":
            today = day_of(self.exchange.now)
            self.exchange.record(Kept(account.account_id, "authorisations", number, {"day": today}))
            await self.exchange.durable()
            return web.Response(text="Your holdings can be sold today.")
        form = "<form method='post'><button>Authorise the sale of my holdings today</button></form>"
        return web.Response(text=f"<!doctype html><title>Depository</title>{form}", content_type="text/html")

    def require_authorised(self, account: Account) -> None:
        """Where the account's consent is by the day, refuse a sale of holdings before it was given. Raises `KiteError`."""
        if account.kept.get("demat", {}).get("consent", {}).get("is") != "physical":
            return
        today = day_of(self.exchange.now)
        if not any(each.get("day") == today for each in account.kept.get("authorisations", {}).values()):
            raise KiteError(
                400, "HoldingException",
                "Insufficient holdings: the sale is not authorised at the depository (CDSL) today. Authorise it and retry.",
            )  # fmt: skip

    # --- inside ------------------------------------------------------------------------------------------------------

    def _today(self) -> date:
        return datetime.fromtimestamp(self.exchange.now / 1_000, IST).date()

    def _all(self, account: Account) -> list[Position]:
        """Positions as of the market's day."""
        today = day_of(self.exchange.now)
        found = [each for each in account.positions.values() if each.symbol in self.desk.contracts]
        for position in found:
            position.roll(today)
        return found

    def _check_conversion(
        self, call: Call, contract: Contract, old: str, new: str, quantity: Decimal, *, buys: bool
    ) -> None:
        if new == "MIS" and (since := self.desk.flat.get(contract.exchange)):
            raise bad_input(f"Conversion to MIS is not allowed after {since}: positions are being squared off.")
        position = call.account.position(contract.tradingsymbol, old)
        position.roll(day_of(self.exchange.now))
        there = position.bought - position.sold if old in DELIVERY else abs(position.units)
        if quantity <= 0 or quantity > there or (position.units > 0) != buys:
            raise bad_input(f"Only {max(there, ZERO):f} of {contract.tradingsymbol} are open as {old} on that side.")
        if old in DELIVERY and quantity > call.account.balance(contract.tradingsymbol).free:
            raise bad_input("The shares are blocked by an open order: cancel it first.")
        if new in DELIVERY and not buys:
            raise bad_input("A short position cannot be converted to delivery: buy it back.")

    def _conversion(self, account: Account, contract: Contract, old: str, new: str, units: Decimal) -> Converted:
        now, symbol = self.exchange.now, contract.tradingsymbol
        before, after = _copy(account.position(symbol, old)), _copy(account.position(symbol, new))
        margin_of = margins_by(self.desk.book)
        free = account.balance(RUPEES).free
        cost = before.take_out(units)
        after.units, after.cost = after.units + units, after.cost + cost
        left, wanted = margin_for(margin_of, before, now), margin_for(margin_of, after, now)
        paid = (cost if new in DELIVERY else ZERO) - (cost if old in DELIVERY else ZERO)
        asked = (left - before.margin) + (wanted - after.margin) + paid
        if asked > free:
            raise KiteError(
                400, "MarginException",
                f"Insufficient funds. Required margin is {asked:.2f} but available margin is {free:.2f}.",
            )  # fmt: skip
        return Converted(account.account_id, symbol, old, new, units, left, wanted, now)

    def _last(self, symbol: str) -> float:
        return float(self.exchange.markets[symbol].last or 0)

    def _close(self, symbol: str) -> float:
        """The last close before today."""
        return float(self.desk.bands.base(self.desk.contracts[symbol]))

    def _funds(self, account: Account, *, rupees: bool) -> dict[str, Any]:
        balance = account.balance(RUPEES)
        free, locked = (balance.free, balance.locked) if rupees else (ZERO, ZERO)
        open_positions = [each for each in self._all(account) if each.units and each.product not in DELIVERY] if rupees else []  # fmt: skip
        span = exposure = premium = unrealised = ZERO
        for each in open_positions:
            side: Side = "BUY" if each.units > 0 else "SELL"
            found = margin(self.desk.contracts[each.symbol], each.product, side, abs(each.units), abs(each.cost), self.exchange.now)  # fmt: skip
            span, exposure, premium = span + found.initial, exposure + found.exposure, premium + found.premium
            unrealised += each.units * (self.exchange.markets[each.symbol].last or ZERO) - each.cost
        if rupees:  # open orders on margin block theirs as positions do
            on_margin = (each for each in account.open.values() if each.request.terms.get("product") not in DELIVERY)
            span += sum((each.locked for each in on_margin), ZERO)
        everything = self._all(account) if rupees else []
        realised = sum((each.realised for each in everything if each.product not in DELIVERY), ZERO)
        delivered = sum((each.bought_value - each.sold_value for each in everything if each.product in DELIVERY), ZERO)
        opening = free + locked + delivered - realised
        blocked = locked - span - exposure - premium
        return {
            "enabled": rupees,
            "net": float(free),
            "available": {
                "adhoc_margin": 0, "cash": float(opening), "opening_balance": float(opening),
                "live_balance": float(free), "collateral": 0, "intraday_payin": 0,
            },
            "utilised": {
                "debits": float(opening - free), "exposure": float(exposure), "m2m_realised": float(realised),
                "m2m_unrealised": float(unrealised), "option_premium": float(premium), "payout": 0, "span": float(span),
                "holding_sales": 0, "turnover": 0, "liquid_collateral": 0, "stock_collateral": 0,
                "delivery": float(blocked + delivered),
            },
        }  # fmt: skip

    def _position(self, held: Position) -> dict[str, Any]:
        contract, last = self.desk.contracts[held.symbol], self._last(held.symbol)
        delivery = held.product in DELIVERY
        overnight = ZERO if delivery else held.opening
        overnight_cost = ZERO if delivery else held.opening_cost
        units = held.bought - held.sold if delivery else held.units
        bought, sold = held.bought + max(overnight, ZERO), held.sold - min(overnight, ZERO)
        bought_value = held.bought_value + max(overnight_cost, ZERO)
        sold_value = held.sold_value - min(overnight_cost, ZERO)
        value, close = sold_value - bought_value, self._close(held.symbol) if overnight else 0.0
        pnl = float(value) + float(units) * last
        m2m = float(held.sold_value - held.bought_value) - float(overnight) * close + float(units) * last
        average = float(held.average) if not delivery else float(
            held.bought_value / held.bought if units > 0 else held.sold_value / held.sold if units < 0 else 0
        )  # fmt: skip
        return {
            "tradingsymbol": held.symbol, "exchange": contract.exchange, "instrument_token": contract.instrument_token,
            "product": held.product, "quantity": int(units), "overnight_quantity": int(overnight), "multiplier": 1,
            "average_price": average if units else 0, "close_price": close, "last_price": last, "value": float(value),
            "pnl": pnl, "m2m": m2m, "unrealised": pnl, "realised": 0, "buy_quantity": int(bought),
            "buy_price": _ratio(bought_value, bought), "buy_value": float(bought_value),
            "buy_m2m": float(held.bought_value) + max(float(overnight), 0.0) * close, "sell_quantity": int(sold),
            "sell_price": _ratio(sold_value, sold), "sell_value": float(sold_value),
            "sell_m2m": float(held.sold_value) - min(float(overnight), 0.0) * close,
            "day_buy_quantity": int(held.bought), "day_buy_price": _ratio(held.bought_value, held.bought),
            "day_buy_value": float(held.bought_value), "day_sell_quantity": int(held.sold),
            "day_sell_price": _ratio(held.sold_value, held.sold), "day_sell_value": float(held.sold_value),
        }  # fmt: skip

    def _holding(self, account: Account, held: Position) -> dict[str, Any]:
        contract, last, close = self.desk.contracts[held.symbol], self._last(held.symbol), self._close(held.symbol)
        units = int(held.opening)
        average = _ratio(held.opening_cost, held.opening)
        try:
            self.require_authorised(account)
            authorised = units
        except KiteError:
            authorised = 0
        nothing_on_margin = {"quantity": 0, "used_quantity": 0, "average_price": 0, "value": 0, "initial_margin": 0}
        return {
            "tradingsymbol": held.symbol, "exchange": contract.exchange, "instrument_token": contract.instrument_token,
            "isin": _isin(contract), "product": "CNC", "price": 0, "quantity": units,
            "used_quantity": int(min(held.sold, held.opening)), "t1_quantity": 0, "realised_quantity": units,
            "authorised_quantity": authorised, "authorised_date": f"{self._today():%Y-%m-%d} 00:00:00",
            "authorisation": {}, "opening_quantity": units, "short_quantity": 0, "collateral_quantity": 0,
            "collateral_type": "", "discrepancy": False, "average_price": average, "last_price": last,
            "close_price": close, "pnl": (last - average) * units, "day_change": last - close,
            "day_change_percentage": (last / close - 1) * 100 if close else 0.0, "mtf": nothing_on_margin,
        }  # fmt: skip


def profile_of(account: Account) -> dict[str, Any]:
    name = account.account_id
    consent = account.kept.get("demat", {}).get("consent", {}).get("is", "consent")
    return {
        "user_id": user_id(name), "user_type": "individual", "email": f"{name}@sandbox.example",
        "user_name": name, "user_shortname": name[:10], "broker": "ZERODHA", "exchanges": ["NSE", "NFO"],
        "products": ["CNC", "NRML", "MIS", "CO"], "order_types": ["MARKET", "LIMIT", "SL", "SL-M"],
        "avatar_url": None, "meta": {"demat_consent": consent},
    }  # fmt: skip


def _copy(position: Position) -> Position:
    return Position(position.symbol, position.product, position.units, position.cost, position.margin)


def _is_position(each: Position) -> bool:
    return bool(each.bought or each.sold) or (each.product not in DELIVERY and bool(each.units))


def _is_holding(each: Position) -> bool:
    return each.product in DELIVERY and each.opening > 0


def _ratio(value: Decimal, quantity: Decimal) -> float:
    return float(value / quantity) if quantity else 0


def _isin(contract: Contract) -> str:
    """A number of an ISIN's shape that belongs to nobody: country XS, then the exchange's token."""
    return f"XS0{contract.exchange_token:09d}"[:12]
