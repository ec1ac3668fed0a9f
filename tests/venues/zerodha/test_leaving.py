"""Leaving a position through the door: stops, cancellations, the reserve of the limits, and rules that hold for entries alone."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.venues.zerodha.replayed import MOCKS, Replayed, sample, success
from tests.venues.zerodha.test_door import OURS, SYMBOL, row
from tests.venues.zerodha.test_orders import OPEN
from trading_platform.identifiers import Symbol
from trading_platform.markets.position_limits import BanList
from trading_platform.venues.port import Accepted, Refused
from trading_platform.venues.zerodha.limits import Bucket
from trading_platform.venues.zerodha.venue import ZerodhaVenue, tag_of

D = Decimal
SHARE_FUTURE = Symbol("INFY26NOVFUT")
INDEX_FUTURE = Symbol("NIFTY26NOVFUT")
FUTURES = (
    "\n9604354,37517,NIFTY26NOVFUT,NIFTY,0,2026-11-24,0,0.1,65,FUT,NFO-FUT,NFO"
    "\n9604610,37518,INFY26NOVFUT,INFY,0,2026-11-24,0,0.1,400,FUT,NFO-FUT,NFO"
)


@dataclass
class Counting:
    """The limiter's place: notes what was asked for as reducing."""

    taken: list[tuple[Bucket, bool]] = field(default_factory=list)

    async def take(self, bucket: Bucket, *, reducing: bool = False) -> timedelta | None:
        self.taken.append((bucket, reducing))
        return None


@pytest.fixture
async def venue(kite: Replayed) -> ZerodhaVenue:
    dump = (MOCKS / "instruments_nse.csv").read_bytes() + FUTURES.encode()
    kite.answers["GET", "/instruments"] = (200, dump)
    limiter: Any = Counting()
    found = ZerodhaVenue(kite.transport(timeout_seconds=1.0, limiter=limiter), lambda: OPEN)
    await found.instruments()
    limiter.taken.clear()
    kite.asked.clear()
    return found


def orders_taken(venue: ZerodhaVenue) -> list[bool]:
    limiter: Any = venue.transport.limiter
    return [reducing for bucket, reducing in limiter.taken if bucket is Bucket.ORDER]


async def test_an_exit_and_a_cancellation_use_the_reserve_and_an_entry_does_not(
    kite: Replayed, venue: ZerodhaVenue
) -> None:
    kite.answers["POST", "/orders/regular"] = success({"order_id": "1"})
    for side, reducing in (("buy", False), ("sell", True)):
        await venue.place_market(OURS, SYMBOL, side, D(1), datetime.now(UTC), reducing=reducing)  # type: ignore[arg-type]
    kite.answers["GET", "/orders"] = success([row(order_id="1", status="OPEN", variety="regular")])
    kite.answers["DELETE", "/orders/regular/1"] = success({"order_id": "1"})
    await venue.cancel(OURS, SYMBOL)
    assert orders_taken(venue) == [False, True, True]
    await venue.close()


async def test_a_stop_is_a_limit_order_with_a_trigger_and_uses_the_reserve(kite: Replayed, venue: ZerodhaVenue) -> None:
    """The shape of Kite Connect's SL order: price and trigger_price, no market protection."""
    kite.answers["POST", "/orders/regular"] = success({"order_id": "1"})
    waiting = row(order_id="1", status="TRIGGER PENDING", filled_quantity=0, order_type="SL")
    kite.answers["GET", "/orders/1"] = success([waiting])
    placed = await venue.place_stop(OURS, SYMBOL, "sell", D(3), D("690.5"), D(684), datetime.now(UTC))
    assert isinstance(placed, Accepted)
    assert placed.state == "WORKING"
    assert kite.asked[0].form == {
        "exchange": "NSE", "tradingsymbol": "ADANIPORTS", "transaction_type": "SELL", "quantity": "3", "product": "CNC",
        "order_type": "SL", "validity": "DAY", "price": "684", "trigger_price": "690.5", "tag": tag_of(OURS),
    }  # fmt: skip
    assert orders_taken(venue) == [True]
    above = await venue.place_stop(OURS, SYMBOL, "sell", D(3), D("690.5"), D(691), datetime.now(UTC))
    assert isinstance(above, Refused), "a sale that is triggered below its own limit would not fill"
    await venue.close()


async def test_what_has_ended_is_not_cancelled(kite: Replayed, venue: ZerodhaVenue) -> None:
    kite.answers["GET", "/orders"] = success([row(order_id="1", status="COMPLETE", variety="regular")])
    answer = await venue.cancel(OURS, SYMBOL)
    assert isinstance(answer, Refused)
    assert answer.code == "NOTHING_TO_CANCEL"
    assert [asked.method for asked in kite.asked] == ["GET"]
    await venue.close()


async def test_a_ban_and_a_missing_ban_list_hold_for_entries_alone(venue: ZerodhaVenue) -> None:
    def code(contract: Symbol, quantity: int, *, reducing: bool) -> str | None:
        found = venue.forbids(contract, "buy", D(quantity), reducing=reducing)
        return found and found.code

    assert code(SHARE_FUTURE, 400, reducing=False) == "BAN_LIST_MISSING"
    assert code(SHARE_FUTURE, 400, reducing=True) is None
    assert code(INDEX_FUTURE, 65, reducing=False) is None
    assert code(SYMBOL, 1, reducing=False) is None
    venue.bans = {OPEN.date(): BanList(OPEN.date(), frozenset({"INFY"}))}
    assert code(SHARE_FUTURE, 400, reducing=False) == "BAN_PERIOD"
    assert code(SHARE_FUTURE, 400, reducing=True) is None
    venue.bans = {OPEN.date(): BanList(OPEN.date(), frozenset())}
    assert code(SHARE_FUTURE, 400, reducing=False) is None
    assert code(SHARE_FUTURE, 399, reducing=True) == "QUANTITY_LOT"
    await venue.close()


BAND = {"lower_circuit_limit": 100, "upper_circuit_limit": 120}
SELLERS = {"buy": [{"price": 0, "quantity": 0, "orders": 0}], "sell": [{"price": 120, "quantity": 5, "orders": 1}]}


@pytest.mark.parametrize(
    ("quoted", "seconds", "code"),
    [
        ({"last_price": 110}, 0, None),
        ({"last_price": 101}, 0, None),  # exactly a hundredth above the lower limit
        ({"last_price": 100.95}, 0, "PRICE_NO_EXIT_ROOM"),
        ({"last_price": 120, "depth": {}}, 0, "PRICE_LOCKED"),
        ({"last_price": 120, "depth": SELLERS}, 0, None),
        ({"last_price": 119.95, "depth": {}}, 0, None),
        ({"last_price": 120, "depth": {}}, 30, "PRICE_LOCKED"),
        ({"last_price": 120, "depth": {}}, 31, None),  # nobody knows what it is now
        ({"last_price": 120, "depth": {}, "lower_circuit_limit": 0, "upper_circuit_limit": 0}, 0, None),
    ],
)
async def test_what_nobody_sells_or_could_not_be_left_is_not_entered(
    kite: Replayed, venue: ZerodhaVenue, quoted: dict[str, Any], seconds: int, code: str | None
) -> None:
    row = sample("quote")["NSE:INFY"] | BAND | quoted
    kite.answers["GET", "/quote"] = success({f"NSE:{SYMBOL}": row})
    await venue.books([SYMBOL])
    venue.now = lambda: OPEN + timedelta(seconds=seconds)
    denied = venue.forbids(SYMBOL, "buy", D(1), reducing=False)
    assert (denied and denied.code) == code
    assert venue.forbids(SYMBOL, "sell", D(1), reducing=True) is None, "what is held may always be left"
    await venue.close()
