"""Alerts: a price against a constant or another price; an ATO alert also places a basket of orders when it fires."""

import operator
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from trading_platform.sandbox.books import Account
from trading_platform.sandbox.events import Kept
from trading_platform.sandbox.exchange import Exchange
from trading_platform.sandbox.kite.desk import Desk, in_words
from trading_platform.sandbox.kite.door import Call, Door
from trading_platform.sandbox.kite.errors import KiteError, bad_input, missing
from trading_platform.sandbox.kite.forms import amount, new_order
from trading_platform.sandbox.kite.quotes import Quotes
from trading_platform.sandbox.kite.rows import number_of, stamp, user_id
from trading_platform.sandbox.rules import RefusedError

MOST_ACTIVE = 500
OPERATORS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt, "==": operator.eq}
ATTRIBUTE = "LastTradedPrice"
NOT_ORDERS = frozenset({"squareoff", "stoploss", "trailing_stoploss", "gtt", "tags", "variety"})


@dataclass
class Alerts:
    """Handlers of /alerts, and the engine behind them."""

    exchange: Exchange
    desk: Desk
    quotes: Quotes
    door: Door

    def routes(self) -> Iterator[Any]:
        route = self.door.route
        yield route("POST", "/alerts", self.create)
        yield route("GET", "/alerts", self.all)
        yield route("DELETE", "/alerts", self.delete)
        yield route("GET", "/alerts/{uuid}", self.one)
        yield route("PUT", "/alerts/{uuid}", self.modify)
        yield route("GET", "/alerts/{uuid}/history", self.history)

    def create(self, call: Call) -> dict[str, Any]:
        kept = call.account.kept.get("alert", {}).values()
        if sum(each["status"] == "enabled" for each in kept) >= MOST_ACTIVE:
            raise bad_input(f"Maximum number of active alerts reached: {MOST_ACTIVE}.")
        now = stamp(self.exchange.now)
        made = {
            "uuid": str(uuid.uuid4()),
            "status": "enabled",
            "disabled_reason": "",
            "alert_count": 0,
            "created_at": now,
        }
        return self._keep(call.account, {**made, **self._read(call), "updated_at": now})

    def all(self, call: Call) -> list[dict[str, Any]]:
        return list(call.account.kept.get("alert", {}).values())

    def one(self, call: Call) -> dict[str, Any]:
        return self._find(call.account, call.path["uuid"])

    def modify(self, call: Call) -> dict[str, Any]:
        was = self.one(call)
        changed = {**was, **self._read(call), "status": "enabled", "updated_at": stamp(self.exchange.now)}
        return self._keep(call.account, changed)

    def delete(self, call: Call) -> None:
        for name in call.every("uuid") or [""]:
            self._find(call.account, name)
            self.exchange.record(
                Kept(call.account.account_id, "alert", name, None),
                Kept(call.account.account_id, "alert_history", name, None),
            )

    def history(self, call: Call) -> list[dict[str, Any]]:
        self.one(call)
        found: list[dict[str, Any]] = (
            call.account.kept.get("alert_history", {}).get(call.path["uuid"], {}).get("rows", [])
        )
        return found

    def after_step(self) -> None:
        for account in list(self.exchange.books.accounts.values()):
            for alert in list(account.kept.get("alert", {}).values()):
                if alert["status"] == "enabled" and self._holds(alert):
                    self._fire(account, alert)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _find(self, account: Account, name: str) -> dict[str, Any]:
        found: dict[str, Any] | None = account.kept.get("alert", {}).get(name)
        if found is None:
            raise KiteError(404, "GeneralException", "Alert not found.")
        return found

    def _keep(self, account: Account, alert: dict[str, Any]) -> dict[str, Any]:
        self.exchange.record(Kept(account.account_id, "alert", alert["uuid"], alert))
        return alert

    def _read(self, call: Call) -> dict[str, Any]:
        fields = call.fields
        for name in ("name", "lhs_exchange", "lhs_tradingsymbol", "lhs_attribute", "operator", "rhs_type"):
            if not fields.get(name):
                raise missing(name)
        kind = fields.get("type") or "simple"
        if kind not in ("simple", "ato") or fields["operator"] not in OPERATORS or fields["lhs_attribute"] != ATTRIBUTE:
            raise bad_input(
                f"type is simple or ato, operator one of {', '.join(OPERATORS)}, lhs_attribute {ATTRIBUTE}."
            )
        self._last(fields["lhs_exchange"], fields["lhs_tradingsymbol"])
        if fields["rhs_type"] == "instrument":
            self._last(fields.get("rhs_exchange", ""), fields.get("rhs_tradingsymbol", ""))
        elif fields["rhs_type"] != "constant" or amount(fields, "rhs_constant") is None:
            raise bad_input("Invalid `rhs_type` or `rhs_constant`.")
        read: dict[str, Any] = {
            "type": kind, "user_id": user_id(call.account.account_id), "name": fields["name"],
            "lhs_attribute": ATTRIBUTE, "lhs_exchange": fields["lhs_exchange"],
            "lhs_tradingsymbol": fields["lhs_tradingsymbol"], "operator": fields["operator"],
            "rhs_type": fields["rhs_type"], "rhs_attribute": fields.get("rhs_attribute", ""),
            "rhs_exchange": fields.get("rhs_exchange", ""), "rhs_tradingsymbol": fields.get("rhs_tradingsymbol", ""),
            "rhs_constant": float(amount(fields, "rhs_constant") or 0),
        }  # fmt: skip
        return read | ({"basket": self._basket(fields.get("basket", ""))} if kind == "ato" else {})

    def _basket(self, text: str) -> dict[str, Any]:
        try:
            items = orjson.loads(text)["items"]
            for item in items:
                contract = self.desk.contract(str(item["exchange"]), str(item["tradingsymbol"]))
                item["instrument_token"] = contract.instrument_token
                self._order(item)
        except (orjson.JSONDecodeError, KeyError, TypeError) as problem:
            raise bad_input(
                "Invalid `basket`: it is JSON with items, each exchange, tradingsymbol and params."
            ) from problem
        return {"items": items}

    def _order(self, item: dict[str, Any]) -> Any:
        given = {
            name: str(value) for name, value in item["params"].items() if name not in NOT_ORDERS and value is not None
        }
        fields = {**given, "exchange": str(item["exchange"]), "tradingsymbol": str(item["tradingsymbol"])}
        return new_order(str(item["params"].get("variety", "regular")), fields)

    def _last(self, exchange: str, symbol: str) -> float:
        contract = self.desk.contract("NSE" if exchange == "INDICES" else exchange, symbol)
        return float(self.desk.bands.last(contract) or 0)

    def _holds(self, alert: dict[str, Any]) -> bool:
        left = self._last(alert["lhs_exchange"], alert["lhs_tradingsymbol"])
        by_price = alert["rhs_type"] == "instrument"
        right = self._last(alert["rhs_exchange"], alert["rhs_tradingsymbol"]) if by_price else alert["rhs_constant"]
        return bool(left and OPERATORS[alert["operator"]](left, right))

    def _fire(self, account: Account, alert: dict[str, Any]) -> None:
        now = stamp(self.exchange.now)
        exchange = "NSE" if alert["lhs_exchange"] == "INDICES" else alert["lhs_exchange"]
        contract = self.desk.contract(exchange, alert["lhs_tradingsymbol"])
        quote = self.quotes.quote_of(contract)
        quote.pop("depth")
        meta = {**quote, "tradingsymbol": contract.tradingsymbol, "exchange": alert["lhs_exchange"], "volume_tick": 0}
        right = f"{alert['rhs_exchange']}:{alert['rhs_tradingsymbol']}" if alert["rhs_type"] == "instrument" else alert["rhs_constant"]  # fmt: skip
        row = {
            "uuid": alert["uuid"], "type": alert["type"], "meta": [meta],
            "condition": f'{ATTRIBUTE}("{alert["lhs_exchange"]}:{alert["lhs_tradingsymbol"]}") {alert["operator"]} {right}',
            "created_at": now, "order_meta": self._orders_of(account, alert) if alert["type"] == "ato" else None,
        }  # fmt: skip
        rows = account.kept.get("alert_history", {}).get(alert["uuid"], {}).get("rows", [])
        self.exchange.record(Kept(account.account_id, "alert_history", alert["uuid"], {"rows": [row, *rows]}))
        self._keep(account, {**alert, "status": "disabled", "alert_count": alert["alert_count"] + 1, "updated_at": now})

    def _orders_of(self, account: Account, alert: dict[str, Any]) -> list[dict[str, Any]]:
        outcomes = []
        for item in alert["basket"]["items"]:
            try:
                outcomes.append({"order_id": number_of(self.desk.place(account, self._order(item)))})
            except KiteError as problem:
                outcomes.append({"error": problem.message})
            except RefusedError as problem:
                outcomes.append({"error": in_words(problem).message})
        return outcomes
