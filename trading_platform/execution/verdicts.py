"""How an operator says that an order ended, where no venue can say it any more.

A venue forgets: Kite's book of orders is that of one day. For an order that is in no book a person looks at the broker's
contract note, and his word goes into the order's outbox row. The group's engine, which alone writes its books, asks the venue
once more and then takes it as a report; it is the same fills by the same trade ids, so that a late word of the venue's own
changes nothing twice.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from trading_platform.identifiers import TradeId, VenueOrderId
from trading_platform.venues.port import Accepted, VenueFill

ABSENT, ENDED = "absent", "ended"
FORM = "TRADE_ID:QUANTITY:PRICE:FEE:CURRENCY"


def verdict(outcome: str, fills: Sequence[str], by: str) -> dict[str, Any]:
    """What goes into the outbox row. `fills` as `FORM`. Raises `ValueError` for what cannot be read or cannot be meant."""
    if outcome not in (ABSENT, ENDED):
        raise ValueError(f"an order is settled as {ABSENT!r} or {ENDED!r}, not {outcome!r}")
    if fills and outcome == ABSENT:
        raise ValueError(f"an order that never arrived has no fills: settle it as {ENDED!r}, or leave the fills out")
    rows = [_read(each) for each in fills]
    if len({row["trade_id"] for row in rows}) < len(rows):
        raise ValueError("two of the fills have the same trade id: each is told once")
    return {"outcome": outcome, "fills": rows, "by": by}


def as_told(said: Mapping[str, Any], venue_order_id: str | None, at: datetime) -> Accepted:
    """The verdict as a report: ended, with these fills at market time `at`."""
    fills = [
        VenueFill(
            TradeId(row["trade_id"]), Decimal(row["price"]), Decimal(row["quantity"]), Decimal(row["fee"]),
            row["fee_currency"], at,
        )
        for row in said["fills"]
    ]  # fmt: skip
    filled = sum((fill.quantity for fill in fills), Decimal(0))
    return Accepted(VenueOrderId(venue_order_id or ""), "EXPIRED", filled, fills, complete=True)


def _read(text: str) -> dict[str, str]:
    parts = text.rsplit(":", 4)
    names = ("trade_id", "quantity", "price", "fee", "fee_currency")
    if len(parts) != len(names) or not all(parts):
        raise ValueError(f"a fill is given as {FORM}, for example 4711:10:1500.05:0.42:INR; got {text!r}")
    row = dict(zip(names, parts, strict=True))
    for name, least in (("quantity", 0), ("price", 0), ("fee", -1)):
        try:
            amount = Decimal(row[name])
        except InvalidOperation:
            raise ValueError(f"the {name} of a fill must be a number, got {row[name]!r} in {text!r}") from None
        if not amount.is_finite() or amount <= least:
            raise ValueError(f"the {name} of a fill cannot be {amount} (in {text!r})")
    return row
