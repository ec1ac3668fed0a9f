"""Triggers that the broker keeps (GTT): a limit order at one price, or a stop and a target of which one fires.

    await triggers.place(Trigger("NSE", "INFY", (Decimal(702),), (Leg(...),)), last_price)
    unprotected(await triggers.all())          # triggers that fired and did not become an order

Triggered is not filled. A trigger that failed, was disabled or lapsed leaves its position without a stop: that is found by
reading, and is an alarm. Rules: the broker's GTT pages (limit orders of CNC shares and NRML derivatives, a quarter of a
percent away from the last price, 250 active at most).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

import orjson

from trading_platform.markets.contracts import Contract
from trading_platform.markets.denials import Denial
from trading_platform.markets.quantities import check_lot
from trading_platform.markets.sessions import IST
from trading_platform.markets.ticks import check_tick, round_price
from trading_platform.venues.port import Ambiguous, QueryFailedError
from trading_platform.venues.zerodha.errors import as_result, found_state
from trading_platform.venues.zerodha.orders import NotSent
from trading_platform.venues.zerodha.transport import Failure, Fields, KiteTransport, Success

Status = Literal["active", "triggered", "disabled", "expired", "cancelled", "rejected", "deleted"]
LEAST_DISTANCE = Decimal("0.0025")
MOST_ACTIVE = 250
PRODUCTS = {"NSE": "CNC", "BSE": "CNC", "NFO": "NRML", "BFO": "NRML"}
NO_LONGER_PROTECTS = frozenset({"disabled", "expired", "cancelled", "rejected"})


@dataclass(frozen=True, slots=True)
class Leg:
    """The limit order that a trigger places. Rupees; `quantity` in units."""

    side: Literal["BUY", "SELL"]
    quantity: int
    price: Decimal


@dataclass(frozen=True, slots=True)
class Trigger:
    """One price and one leg; or two (stop below, target above) and two legs, of which the first to fire ends the other."""

    exchange: str
    tradingsymbol: str
    values: tuple[Decimal, ...]
    legs: tuple[Leg, ...]

    @property
    def kind(self) -> Literal["single", "two-leg"]:
        return "single" if len(self.values) == 1 else "two-leg"

    def form(self, last_price: Decimal) -> Fields:
        condition = {
            "exchange": self.exchange, "tradingsymbol": self.tradingsymbol, "last_price": float(last_price),
            "trigger_values": [float(value) for value in self.values],
        }  # fmt: skip
        orders = [
            {
                "exchange": self.exchange, "tradingsymbol": self.tradingsymbol, "transaction_type": leg.side,
                "quantity": leg.quantity, "order_type": "LIMIT", "product": PRODUCTS[self.exchange],
                "price": float(leg.price),
            }
            for leg in self.legs
        ]  # fmt: skip
        return {
            "type": self.kind,
            "condition": orjson.dumps(condition).decode(),
            "orders": orjson.dumps(orders).decode(),
        }


@dataclass(frozen=True, slots=True)
class KnownTrigger:
    """A trigger as the broker keeps it. `failures`: why legs that fired did not become orders. Times aware UTC."""

    trigger_id: int
    status: str
    trigger: Trigger
    order_ids: tuple[str, ...]
    failures: tuple[str, ...]
    expires_at: datetime | None


@dataclass
class Triggers:
    """The triggers of one account."""

    transport: KiteTransport

    async def place(self, trigger: Trigger, last_price: Decimal) -> int | NotSent:
        """The trigger's number. Check it first (`check_trigger`)."""
        return await self._number("POST", "/gtt/triggers", trigger.form(last_price))

    async def change(self, trigger_id: int, trigger: Trigger, last_price: Decimal) -> int | NotSent:
        """Replace condition and legs: after every fill that grows a position, or its trigger is too small."""
        return await self._number("PUT", f"/gtt/triggers/{trigger_id}", trigger.form(last_price))

    async def delete(self, trigger_id: int) -> int | NotSent:
        return await self._number("DELETE", f"/gtt/triggers/{trigger_id}", None)

    async def all(self) -> list[KnownTrigger]:
        """Active ones, and those of the last seven days in any state. Raises `QueryFailedError`."""
        return [_known(row) for row in await self._ask("/gtt/triggers")]

    async def get(self, trigger_id: int) -> KnownTrigger:
        """One of any age. Raises `QueryFailedError`."""
        return _known(await self._ask(f"/gtt/triggers/{trigger_id}"))

    async def _number(self, method: str, path: str, form: Fields | None) -> int | NotSent:
        answer = await self.transport.call(method, path, form=form)
        if isinstance(answer, Failure):
            return as_result(answer, "place" if method == "POST" else "modify")
        try:
            return int(answer.data["trigger_id"])
        except (KeyError, TypeError, ValueError):
            return Ambiguous(f"the broker said success and named no trigger: {answer.data!r}")

    async def _ask(self, path: str) -> Any:
        answer = await self.transport.call("GET", path)
        if isinstance(answer, Success):
            return answer.data
        raise QueryFailedError(f"Zerodha did not answer {path}: {answer}")


def check_trigger(trigger: Trigger, contract: Contract, last_price: Decimal, active: int = 0) -> Denial | None:
    """The first rule that would refuse or disable the trigger. `active`: how many the account has."""
    return next((denial for denial in _rules(trigger, contract, last_price, active) if denial is not None), None)


def unprotected(triggers: Iterable[KnownTrigger]) -> list[tuple[KnownTrigger, str]]:
    """(trigger, why) for every one that no longer protects its position: an alarm, not a note (catalogue no. 43)."""
    code = found_state("gtt_failed").code
    found = []
    for each in triggers:
        if each.failures:
            found.append((each, f"{code}: triggered, and the order failed: {'; '.join(each.failures)}"))
        elif each.status in NO_LONGER_PROTECTS:
            found.append((each, f"{code}: the broker shows it as {each.status}"))
    return found


def _rules(trigger: Trigger, contract: Contract, last: Decimal, active: int) -> Iterator[Denial | None]:
    if trigger.exchange not in PRODUCTS:
        yield Denial("GTT_EXCHANGE", f"triggers are for {', '.join(PRODUCTS)}, not {trigger.exchange}")
    if len(trigger.values) not in (1, 2) or len(trigger.legs) != len(trigger.values):
        yield Denial("GTT_LEGS", "a trigger has one price and one leg, or two and two (stop first, then target)")
    if len(trigger.values) == 2 and not trigger.values[0] < last < trigger.values[1]:
        yield Denial("GTT_ORDER", f"the stop lies below the last price {last} and the target above it")
    if active >= MOST_ACTIVE:
        yield Denial("GTT_TOO_MANY", f"{active} triggers are active; {MOST_ACTIVE} are allowed", Decimal(MOST_ACTIVE))
    for value in trigger.values:
        yield check_tick(value, contract, "trigger")
        if abs(value - last) < last * LEAST_DISTANCE:
            edge = last * (1 + LEAST_DISTANCE if value >= last else 1 - LEAST_DISTANCE)
            nearest = round_price(edge, contract.tick_size, "up" if value >= last else "down")
            yield Denial(
                "GTT_DISTANCE", f"trigger {value} is within {LEAST_DISTANCE:.2%} of the last price {last}", nearest
            )
    for leg in trigger.legs:
        yield check_lot(leg.quantity, contract)
        yield check_tick(leg.price, contract)


def _known(row: Mapping[str, Any]) -> KnownTrigger:
    try:
        condition = row["condition"]
        values = tuple(Decimal(str(value)) for value in condition["trigger_values"])
        legs = tuple(
            Leg(order["transaction_type"], int(order["quantity"]), Decimal(str(order["price"])))
            for order in row["orders"]
        )
        results = [(order.get("result") or {}).get("order_result") or {} for order in row["orders"]]
        return KnownTrigger(
            int(row["id"]), str(row["status"]),
            Trigger(condition["exchange"], condition["tradingsymbol"], values, legs),
            tuple(str(result["order_id"]) for result in results if result.get("order_id")),
            tuple(
                str(result.get("rejection_reason") or "no reason given")
                for result in results
                if result.get("status") == "failed"
            ),
            _time(row.get("expires_at")),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise QueryFailedError(f"a trigger of Zerodha's cannot be read: {error!r}") from error


def _time(text: str | None) -> datetime | None:
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=IST).astimezone(UTC) if text else None
