"""Margins and charges before and after the fact, by the platform's own rule tables."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from zoneinfo import ZoneInfo

from trading_platform.markets.contract_note import ContractNote, Leg, charges_of, segment_for
from trading_platform.markets.contracts import Contract, ContractBook, UnknownContractError
from trading_platform.sandbox.exchange import Exchange
from trading_platform.sandbox.kite.door import Call, Door
from trading_platform.sandbox.kite.errors import bad_input, missing
from trading_platform.sandbox.kite.margins import margin as margin_by
from trading_platform.sandbox.margin_ledger import key_of
from trading_platform.sandbox.orders import Side

IST = ZoneInfo("Asia/Kolkata")
FIELDS = ("exchange", "tradingsymbol", "transaction_type", "product", "order_type", "quantity")


@dataclass(frozen=True)
class Asked:
    """One order of a list that is asked about."""

    row: dict[str, Any]
    contract: Contract
    leg: Leg

    @property
    def product(self) -> str:
        return str(self.row["product"])


@dataclass
class Costs:
    """Handlers of /margins and /charges."""

    exchange: Exchange
    book: ContractBook
    door: Door

    def routes(self) -> Iterator[Any]:
        route = self.door.route
        yield route("POST", "/margins/orders", self.margins)
        yield route("POST", "/margins/basket", self.basket)
        yield route("POST", "/charges/orders", self.charges)

    def margins(self, call: Call) -> list[dict[str, Any]]:
        return [self._margin(each) for each in self._asked(call)]

    def basket(self, call: Call) -> dict[str, Any]:
        """`final` has the benefit of legs that close one another, and of what is held where that is asked for."""
        asked = self._asked(call)
        rows = [self._margin(each) for each in asked]
        total = self._sum(rows)
        left = self._sum([self._margin(each) for each in self._netted(call, asked)])
        return {
            "initial": total,
            "final": {**left, "charges": total["charges"]},
            "orders": rows,
            "charges": total["charges"],
        }

    def charges(self, call: Call) -> list[dict[str, Any]]:
        shown = ("transaction_type", "tradingsymbol", "exchange", "variety", "product", "order_type", "quantity")
        return [
            {name: each.row.get(name, "") for name in shown}
            | {"price": float(each.leg.price), "charges": self._charges(each)}
            for each in self._asked(call)
        ]

    # --- inside ------------------------------------------------------------------------------------------------------

    def _netted(self, call: Call, asked: list[Asked]) -> list[Asked]:
        """Orders of a basket by contract and product, against each other and what is held."""
        sums: dict[tuple[str, str], tuple[Asked, int]] = {}
        held = call.fields.get("consider_positions", "").lower() == "true"
        for each in asked:
            key = (each.contract.tradingsymbol, each.product)
            position = call.account.positions.get(key_of(*key))
            start = int(position.units) if held and position is not None else 0
            first, units = sums.get(key, (each, start))
            sums[key] = (first, units + (each.leg.quantity if each.leg.side == "buy" else -each.leg.quantity))
        return [
            replace(each, leg=Leg("buy" if units > 0 else "sell", abs(units), each.leg.price))
            for each, units in sums.values()
            if units
        ]

    def _asked(self, call: Call) -> list[Asked]:
        if not isinstance(call.json, list):
            raise bad_input("The body must be a JSON list of orders.")
        return [self._one(row) for row in call.json]

    def _one(self, row: Any) -> Asked:
        if not isinstance(row, dict):
            raise bad_input("Every order must be an object.")
        for name in FIELDS:
            if not row.get(name):
                raise missing(name)
        try:
            contract = self.book.get(str(row["exchange"]), str(row["tradingsymbol"]))
            quantity = int(row["quantity"])
            price = Decimal(str(row.get("average_price") or row.get("price") or 0))
        except (UnknownContractError, ValueError, TypeError, InvalidOperation) as problem:
            raise bad_input("Invalid `tradingsymbol`, `quantity` or `price`.") from problem
        market = self.exchange.markets.get(contract.tradingsymbol)
        price = price or (market.last if market and market.last else Decimal(0))
        side = "buy" if row["transaction_type"] == "BUY" else "sell"
        return Asked(row, contract, Leg(side, quantity, price))  # type: ignore[arg-type]

    def _note(self, asked: Asked) -> ContractNote:
        day = datetime.fromtimestamp(self.exchange.now / 1_000, IST).date()
        segment = segment_for(asked.contract, asked.product)
        return charges_of(asked.contract.exchange, segment, [asked.leg], day, scrips_sold=0)

    def _charges(self, asked: Asked) -> dict[str, Any]:
        note = self._note(asked)
        return {
            "transaction_tax": float(note.transaction_tax),
            "transaction_tax_type": "ctt" if asked.contract.exchange in ("MCX", "NCO") else "stt",
            "exchange_turnover_charge": float(note.exchange), "sebi_turnover_charge": float(note.sebi),
            "brokerage": float(note.brokerage), "stamp_duty": float(note.stamp),
            "gst": {"igst": float(note.gst), "cgst": 0, "sgst": 0, "total": float(note.gst)},
            "total": float(note.total),
        }  # fmt: skip

    def _margin(self, asked: Asked) -> dict[str, Any]:
        side: Side = "BUY" if asked.leg.side == "buy" else "SELL"
        margin = margin_by(
            asked.contract, asked.product, side, Decimal(asked.leg.quantity), asked.leg.value, self.exchange.now
        )
        shares = not asked.contract.is_derivative
        return {
            "type": "equity", "tradingsymbol": asked.contract.tradingsymbol, "exchange": asked.contract.exchange,
            "span": 0 if shares else float(margin.initial), "exposure": float(margin.exposure),
            "option_premium": float(margin.premium), "additional": 0, "bo": 0, "cash": 0,
            "var": float(margin.initial) if shares else 0, "pnl": {"realised": 0, "unrealised": 0},
            "leverage": float(asked.leg.value / margin.total) if margin.total else 1, "charges": self._charges(asked),
            "total": float(margin.total),
        }  # fmt: skip

    def _sum(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        names = ("span", "exposure", "option_premium", "additional", "bo", "cash", "var", "total")
        heads = (
            "transaction_tax",
            "exchange_turnover_charge",
            "sebi_turnover_charge",
            "brokerage",
            "stamp_duty",
            "total",
        )
        charges = {name: sum(row["charges"][name] for row in rows) for name in heads}
        gst = sum(row["charges"]["gst"]["total"] for row in rows)
        return {
            "type": "equity", "tradingsymbol": "", "exchange": "",
            **{name: sum(row[name] for row in rows) for name in names},
            "pnl": {"realised": 0, "unrealised": 0}, "leverage": 0,
            "charges": {
                **charges, "transaction_tax_type": "stt", "gst": {"igst": gst, "cgst": 0, "sgst": 0, "total": gst},
            },
        }  # fmt: skip
