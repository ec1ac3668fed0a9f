"""Kite's order statuses as states of the order door. No status is terminal that is not known to be.

A late fill can still come after a cancellation: trades are applied by their id, and win over the status.
"""

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Any

import structlog

from trading_platform.venues.port import OrderState

log = structlog.get_logger(__name__)
FINAL: dict[str, OrderState] = {"COMPLETE": "FILLED", "REJECTED": "REJECTED", "CANCELLED": "CANCELLED"}
WORKING = frozenset(
    {
        "PUT ORDER REQ RECEIVED", "VALIDATION PENDING", "OPEN PENDING", "OPEN", "TRIGGER PENDING", "MODIFIED",
        "MODIFY VALIDATION PENDING", "MODIFY PENDING", "CANCEL PENDING", "AMO REQ RECEIVED", "MODIFY AMO REQ RECEIVED",
    }
)  # fmt: skip
"""Also `UPDATE`, which only postbacks say: the order is then read."""


class Lifecycle(StrEnum):
    """Where an order is, finer than the order door's states: what its exit protection needs to know."""

    SUBMITTED = "SUBMITTED"
    QUEUED_AMO = "QUEUED_AMO"
    ARMED = "ARMED"
    """A stop that waits for its trigger at the exchange. Before this, an order number is no protection."""
    WORKING = "WORKING"
    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    MODIFY_PENDING = "MODIFY_PENDING"
    CANCEL_PENDING = "CANCEL_PENDING"
    FILLED = "FILLED"
    CANCELLED = "CANCELLED"
    CANCELLED_PARTIAL = "CANCELLED_PARTIAL"
    REJECTED = "REJECTED"
    UNKNOWN_BROKER_STATUS = "UNKNOWN_BROKER_STATUS"
    """Never an end: go on asking."""

    @property
    def ended(self) -> bool:
        return self in ENDS


ENDS = frozenset({Lifecycle.FILLED, Lifecycle.CANCELLED, Lifecycle.CANCELLED_PARTIAL, Lifecycle.REJECTED})
LIFECYCLE = {
    "PUT ORDER REQ RECEIVED": Lifecycle.SUBMITTED,
    "VALIDATION PENDING": Lifecycle.SUBMITTED,
    "OPEN PENDING": Lifecycle.SUBMITTED,
    "AMO REQ RECEIVED": Lifecycle.QUEUED_AMO,
    "MODIFY AMO REQ RECEIVED": Lifecycle.QUEUED_AMO,
    "TRIGGER PENDING": Lifecycle.ARMED,
    "OPEN": Lifecycle.WORKING,
    "MODIFIED": Lifecycle.WORKING,
    "MODIFY VALIDATION PENDING": Lifecycle.MODIFY_PENDING,
    "MODIFY PENDING": Lifecycle.MODIFY_PENDING,
    "CANCEL PENDING": Lifecycle.CANCEL_PENDING,
    "COMPLETE": Lifecycle.FILLED,
    "CANCELLED": Lifecycle.CANCELLED,
    "REJECTED": Lifecycle.REJECTED,
}


def lifecycle_of(row: Mapping[str, Any]) -> Lifecycle:
    """Of a row of the book; the broker has no status of its own for partial fills."""
    found = LIFECYCLE.get(str(row["status"]), Lifecycle.UNKNOWN_BROKER_STATUS)
    if not int(row.get("filled_quantity") or 0):
        return found
    return {
        Lifecycle.WORKING: Lifecycle.PARTIALLY_FILLED, Lifecycle.CANCELLED: Lifecycle.CANCELLED_PARTIAL,
    }.get(found, found)  # fmt: skip


def state_of(row: Mapping[str, Any]) -> OrderState:
    """The state of an order of the book. A status that is not known keeps the order working, and is logged."""
    status = str(row["status"])
    if status in FINAL:
        return FINAL[status]
    if status not in WORKING:
        log.warning("unknown_broker_status", status=status, order_id=row.get("order_id"))
    filled = Decimal(str(row.get("filled_quantity") or 0))
    return "PARTIALLY_FILLED" if filled else "WORKING"
