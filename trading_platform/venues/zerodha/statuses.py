"""Kite's order statuses as states of the order door. No status is terminal that is not known to be.

A late fill can still come after a cancellation: trades are applied by their id, and win over the status.
"""

from collections.abc import Mapping
from decimal import Decimal
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


def state_of(row: Mapping[str, Any]) -> OrderState:
    """The state of an order of the book. A status that is not known keeps the order working, and is logged."""
    status = str(row["status"])
    if status in FINAL:
        return FINAL[status]
    if status not in WORKING:
        log.warning("unknown_broker_status", status=status, order_id=row.get("order_id"))
    filled = Decimal(str(row.get("filled_quantity") or 0))
    return "PARTIALLY_FILLED" if filled else "WORKING"
