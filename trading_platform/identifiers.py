"""Identifiers, one type each, so that a user can never be passed where an account is meant.

Names are content wherever two runs on the same input must meet in the same row: `content_id` hashes the parts that
define a thing. Venue-given identifiers stay opaque strings (Kite's order ids exceed 2**53).
"""

import hashlib
from typing import NewType

UserId = NewType("UserId", str)
GroupId = NewType("GroupId", str)
AccountId = NewType("AccountId", str)
DatasetId = NewType("DatasetId", str)
StrategyId = NewType("StrategyId", str)
VersionId = NewType("VersionId", str)
SignalId = NewType("SignalId", str)
ExperimentId = NewType("ExperimentId", str)
IntentId = NewType("IntentId", str)
ClientOrderId = NewType("ClientOrderId", str)
VenueOrderId = NewType("VenueOrderId", str)
TradeId = NewType("TradeId", str)
Symbol = NewType("Symbol", str)
"""An instrument's name inside its venue, in the platform's own spelling: `BTC/USDT`, `NIFTY 50`, `INFY`."""

Venue = NewType("Venue", str)
"""`binance`, `zerodha`; the exchange segment is part of the instrument, not of the venue."""


def content_id(prefix: str, *parts: object, length: int = 20) -> str:
    """`prefix_` followed by the first `length` hex digits of sha256 over the parts, joined by an unprintable separator.

    >>> content_id("v", "a", 1) == content_id("v", "a", 1) != content_id("v", "a1")
    True
    """
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).hexdigest()
    return f"{prefix}_{digest[:length]}"
