"""GTT: orders that the broker keeps until a price is reached, one price or a stop and a target of which one fires.

Triggered is not filled: the limit order that follows may be refused, and then the trigger says so in its result. Rules from
the broker's pages: limit orders alone, CNC of shares and NRML of derivatives, 250 active, a quarter of a percent away.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson

from trading_platform.markets.contracts import Contract
from trading_platform.markets.kite_orders import KiteOrder
from trading_platform.markets.quantities import check_lot
from trading_platform.markets.ticks import check_tick
from trading_platform.sandbox.books import Account
from trading_platform.sandbox.events import Kept
from trading_platform.sandbox.exchange import Exchange
from trading_platform.sandbox.kite.desk import Desk, in_words
from trading_platform.sandbox.kite.door import Call, Door
from trading_platform.sandbox.kite.errors import KiteError, bad_input, missing
from trading_platform.sandbox.kite.rows import local, number_of, stamp, user_id
from trading_platform.sandbox.rules import RefusedError

MOST_ACTIVE = 250
LEAST_DISTANCE = Decimal("0.0025")
YEAR = timedelta(days=365)
SHOWN_FOR = timedelta(days=7)
COUNTS = {"single": 1, "two-leg": 2}
FIRST_NUMBER = 100_000


@dataclass
class Triggers:
    """Handlers of /gtt/triggers, and the engine behind them."""

    exchange: Exchange
    desk: Desk
    door: Door

    def __post_init__(self) -> None:
        kept = (int(key) for account in self.exchange.books.accounts.values() for key in account.kept.get("gtt", {}))
        self.number = max(kept, default=FIRST_NUMBER)

    def routes(self) -> Iterator[Any]:
        route = self.door.route
        yield route("POST", "/gtt/triggers", self.place)
        yield route("GET", "/gtt/triggers", self.all)
        yield route("GET", "/gtt/triggers/{number}", self.one)
        yield route("PUT", "/gtt/triggers/{number}", self.modify)
        yield route("DELETE", "/gtt/triggers/{number}", self.delete)

    def place(self, call: Call) -> dict[str, int]:
        body = self._read(call)
        active = sum(each["status"] == "active" for each in call.account.kept.get("gtt", {}).values())
        if active >= MOST_ACTIVE:
            raise bad_input(f"Maximum number of active triggers reached: {MOST_ACTIVE}.")
        self.number += 1
        now = stamp(self.exchange.now)
        self._keep(call.account, {"id": self.number, **body, "created_at": now, "updated_at": now, "status": "active"})
        return {"trigger_id": self.number}

    def all(self, call: Call) -> list[dict[str, Any]]:
        """Active ones, and others of the last seven days."""
        since = f"{local(self.exchange.now) - SHOWN_FOR:%Y-%m-%d %H:%M:%S}"
        kept = call.account.kept.get("gtt", {}).values()
        return [each for each in kept if each["status"] == "active" or each["updated_at"] >= since]

    def one(self, call: Call) -> dict[str, Any]:
        found: dict[str, Any] | None = call.account.kept.get("gtt", {}).get(call.path["number"])
        if found is None:
            raise KiteError(404, "GeneralException", "Trigger not found.")
        return found

    def modify(self, call: Call) -> dict[str, int]:
        was = self._active(call)
        self._keep(call.account, {**was, **self._read(call), "updated_at": stamp(self.exchange.now)})
        return {"trigger_id": was["id"]}

    def delete(self, call: Call) -> dict[str, int]:
        was = self._active(call)
        self._keep(call.account, {**was, "status": "deleted", "updated_at": stamp(self.exchange.now)})
        return {"trigger_id": was["id"]}

    def after_step(self) -> None:
        """Fire what was reached by the bars of the step; end what has expired."""
        now = stamp(self.exchange.now)
        for account in list(self.exchange.books.accounts.values()):
            for trigger in list(account.kept.get("gtt", {}).values()):
                if trigger["status"] != "active":
                    continue
                if trigger["expires_at"] < now:
                    self._keep(account, {**trigger, "status": "expired", "updated_at": now})
                elif (leg := self._reached(trigger)) is not None:
                    self._fire(account, trigger, leg)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _keep(self, account: Account, trigger: dict[str, Any]) -> None:
        self.exchange.record(Kept(account.account_id, "gtt", str(trigger["id"]), trigger))

    def _active(self, call: Call) -> dict[str, Any]:
        found = self.one(call)
        if found["status"] != "active":
            raise bad_input(f"The trigger is {found['status']} and cannot be changed.")
        return found

    def _read(self, call: Call) -> dict[str, Any]:
        """Type, condition and orders of a form. Raises `KiteError`."""
        kind = call.fields.get("type", "")
        if kind not in COUNTS:
            raise bad_input("Invalid `type`.")
        condition, orders = _json(call, "condition", dict), _json(call, "orders", list)
        contract = self.desk.contract(str(condition.get("exchange")), str(condition.get("tradingsymbol")))
        values = [_number("trigger_values", value) for value in _listed(condition.get("trigger_values"))]
        if len(values) != COUNTS[kind] or len(orders) != COUNTS[kind]:
            raise bad_input(f"A {kind} trigger has {COUNTS[kind]} trigger_values and as many orders.")
        last = self.desk.bands.last(contract)
        if last is None or contract.is_index:
            raise bad_input("A trigger cannot be placed on this instrument.")
        for value in values:
            if denial := check_tick(value, contract, "trigger"):
                raise bad_input(str(denial))
            if abs(value - last) < last * LEAST_DISTANCE:
                raise bad_input(f"Trigger price {value} is too close to the last price {last}: it must be 0.25% away.")
        if kind == "two-leg" and not values[0] < last < values[1]:
            raise bad_input("The first trigger of a two-leg trigger lies below the last price, the second above.")
        expires = min(local(self.exchange.now) + YEAR, _end_of(contract) or local(self.exchange.now) + YEAR)
        return {
            "user_id": user_id(call.account.account_id), "parent_trigger": None, "type": kind,
            "expires_at": f"{expires:%Y-%m-%d %H:%M:%S}",
            "condition": {
                "exchange": contract.exchange, "last_price": float(last), "tradingsymbol": contract.tradingsymbol,
                "trigger_values": [float(value) for value in values], "instrument_token": contract.instrument_token,
            },
            "orders": [self._leg(row, contract) for row in orders], "meta": {},
        }  # fmt: skip

    def _leg(self, row: Any, contract: Contract) -> dict[str, Any]:
        if not isinstance(row, dict):
            raise bad_input("Invalid `orders`.")
        for name in ("transaction_type", "quantity", "order_type", "product", "price"):
            if not row.get(name):
                raise missing(name)
        product = "NRML" if contract.is_derivative else "CNC"
        if row["order_type"] != "LIMIT" or row["product"] != product or row["transaction_type"] not in ("BUY", "SELL"):
            raise bad_input(f"A trigger on {contract.exchange} places LIMIT orders, product {product}, BUY or SELL.")
        quantity, price = _number("quantity", row["quantity"]), _number("price", row["price"])
        denial = check_lot(int(quantity), contract) or check_tick(price, contract)
        if denial or quantity != int(quantity):
            raise bad_input(str(denial or "Invalid `quantity`."))
        return {
            "exchange": contract.exchange, "tradingsymbol": contract.tradingsymbol, "product": product,
            "order_type": "LIMIT", "transaction_type": row["transaction_type"], "quantity": int(quantity),
            "price": float(price), "result": None,
        }  # fmt: skip

    def _reached(self, trigger: dict[str, Any]) -> int | None:
        """Which leg's price the last bar reached; of two in one bar the stop."""
        condition = trigger["condition"]
        candles = self.exchange.candles.get(condition["tradingsymbol"])
        if not candles:
            return None
        opened, _, high, low, _, _ = candles.row(len(candles) - 1)
        if opened < self.exchange.now - 2 * candles.interval_ms or stamp(opened) < trigger["updated_at"][:16]:
            return None  # an old bar, or one that began before the trigger was there
        for leg, value in enumerate(condition["trigger_values"]):
            if low <= value if value < condition["last_price"] else high >= value:
                return leg
        return None

    def _fire(self, account: Account, trigger: dict[str, Any], leg: int) -> None:
        row, at = trigger["orders"][leg], stamp(self.exchange.now)
        order = KiteOrder(
            row["exchange"], row["tradingsymbol"], row["transaction_type"], row["quantity"], row["product"], "LIMIT",
            price=Decimal(repr(row["price"])),
        )  # fmt: skip
        outcome = {"status": "success", "order_id": "", "rejection_reason": ""}
        try:
            placed = self.desk.place(account, order, gtt=str(trigger["id"]))
            outcome["order_id"] = number_of(placed)
            if placed.state == "REJECTED":
                outcome |= {"status": "failed", "rejection_reason": placed.reason.partition("|")[0]}
        except KiteError as problem:
            outcome |= {"status": "failed", "rejection_reason": problem.message}
        except RefusedError as problem:
            outcome |= {"status": "failed", "rejection_reason": in_words(problem).message}
        result = {
            "account_id": user_id(account.account_id), "exchange": row["exchange"], "tradingsymbol": row["tradingsymbol"],
            "validity": "DAY", "product": row["product"], "order_type": "LIMIT", "transaction_type": row["transaction_type"],
            "quantity": row["quantity"], "price": row["price"],
            "meta": orjson.dumps({"app_id": 1, "gtt": trigger["id"]}).decode(), "timestamp": at,
            "triggered_at": trigger["condition"]["trigger_values"][leg], "order_result": outcome,
        }  # fmt: skip
        orders = [
            each if number != leg else {**each, "result": result} for number, each in enumerate(trigger["orders"])
        ]
        self._keep(account, {**trigger, "orders": orders, "status": "triggered", "updated_at": at})


def _json(call: Call, name: str, kind: type) -> Any:
    if not call.fields.get(name):
        raise missing(name)
    try:
        found = orjson.loads(call.fields[name])
    except orjson.JSONDecodeError as problem:
        raise bad_input(f"Invalid `{name}`: it is no JSON.") from problem
    if not isinstance(found, kind):
        raise bad_input(f"Invalid `{name}`.")
    return found


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise bad_input("Invalid `trigger_values`.")
    return value


def _number(name: str, value: Any) -> Decimal:
    try:
        number = Decimal(str(value))
    except InvalidOperation as problem:
        raise bad_input(f"Invalid `{name}`.") from problem
    if not number.is_finite() or not 0 < number < Decimal("1e12"):
        raise bad_input(f"Invalid `{name}`.")
    return number


def _end_of(contract: Contract) -> Any:
    if contract.expiry is None:
        return None
    from datetime import datetime, time
    from zoneinfo import ZoneInfo

    return datetime.combine(contract.expiry, time(15, 30), ZoneInfo("Asia/Kolkata"))
