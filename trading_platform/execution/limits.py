"""Limits as rows with history: of a user, an account, a strategy or a group, each in one currency.

A limit in rupees says nothing of an account in USDT: every scope has limits a currency, and a user without limits in an
account's currency may enter nothing there (`LIMITS_MISSING`). The other scopes are free until somebody limits them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from trading_platform.storage.group import RiskLimits

Scope = Literal["user", "account", "strategy", "group"]
SCOPES: tuple[Scope, ...] = ("user", "account", "strategy", "group")
LimitKey = tuple[str, str, str]
"""(scope, scope id, currency)."""


@dataclass(frozen=True)
class Limits:
    """What holds for one scope in one currency; money in that currency, None where there is no such limit."""

    max_order_notional: Decimal
    max_position_notional: Decimal
    """Of one symbol."""
    max_open_positions: int
    max_orders_per_second: int
    max_orders_per_day: int
    max_daily_loss: Decimal
    max_order_quantity: Decimal | None = None
    max_gross_notional: Decimal | None = None
    """Of all symbols together."""
    max_open_orders: int | None = None
    max_orders_per_minute: int | None = None
    max_drawdown: Decimal | None = None
    """Fraction of the highest equity, 0 to 1."""


@dataclass(frozen=True)
class LimitBook:
    """The limits in force in a group."""

    limits: Mapping[LimitKey, Limits]

    @classmethod
    def of(cls, rows: Iterable[RiskLimits]) -> "LimitBook":
        """From the newest revision of every key."""
        return cls({(row.scope, row.scope_id, row.currency): _limits(row) for row in rows})

    def find(self, scope: Scope, scope_id: str, currency: str) -> Limits | None:
        return self.limits.get((scope, scope_id, currency))


def _limits(row: RiskLimits) -> Limits:
    return Limits(
        row.max_order_notional, row.max_position_notional, row.max_open_positions, row.max_orders_per_second,
        row.max_orders_per_day, row.max_daily_loss, row.max_order_quantity, row.max_gross_notional,
        row.max_open_orders, row.max_orders_per_minute, row.max_drawdown,
    )  # fmt: skip
