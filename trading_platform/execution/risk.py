"""Pre-trade risk: the one place that every intent passes. Pure: everything it looks at is in its arguments.

A denial reads `CATEGORY_CONDITION: key=value …`. Exits pass where entries may not: nothing here ever keeps a position
from being closed, except what the venue itself would refuse.
"""

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

ZERO = Decimal(0)
PRICE_TOLERANCE = Decimal("0.2")
"""A signal's price this far from the last one known is not believed."""


class Denial(StrEnum):
    """Why an intent was not sent."""

    HALT_ACTIVE = "HALT_ACTIVE"
    """A halt latch is set for the platform, the group, the account or the user."""
    ENGINE_FLATTENING = "ENGINE_FLATTENING"
    """The group was asked to flatten: only exits go out."""
    ACCOUNT_NOT_ARMED = "ACCOUNT_NOT_ARMED"
    """A live account that its owner has not armed."""
    SIGNAL_UNCERTIFIED = "SIGNAL_UNCERTIFIED"
    """A live account takes certified signals alone, unless its owner said otherwise."""
    SIGNAL_STALE = "SIGNAL_STALE"
    """The signal's time to act is over."""
    INSTRUMENT_UNKNOWN = "INSTRUMENT_UNKNOWN"
    """The venue does not trade it now."""
    ORDER_UNKNOWN_OUTCOME = "ORDER_UNKNOWN_OUTCOME"
    """An order in this symbol has an unknown outcome; it is settled first."""
    PRICE_SANITY = "PRICE_SANITY"
    """The signal's price is too far from the last one known."""
    QUANTITY_TOO_SMALL = "QUANTITY_TOO_SMALL"
    """Less than one step, or below the venue's smallest order."""
    NOTIONAL_ORDER = "NOTIONAL_ORDER"
    """Above the user's largest order."""
    NOTIONAL_POSITION = "NOTIONAL_POSITION"
    """The position would be above the user's largest."""
    POSITIONS_TOO_MANY = "POSITIONS_TOO_MANY"
    """The user holds as many positions as allowed."""
    BALANCE_SHORT = "BALANCE_SHORT"
    """The account's cash does not cover it."""
    LOSS_DAILY = "LOSS_DAILY"
    """The user lost as much as allowed today."""
    RATE_SECOND = "RATE_SECOND"
    """As many orders in this second as allowed."""
    RATE_DAY = "RATE_DAY"
    """As many orders today as allowed."""


@dataclass(frozen=True)
class Limits:
    """A user's limits in force; money in the account's currency."""

    max_order_notional: Decimal
    max_position_notional: Decimal
    max_open_positions: int
    max_orders_per_second: int
    max_orders_per_day: int
    max_daily_loss: Decimal


@dataclass(frozen=True)
class Wish:
    """An order somebody wants to send, and all that decides whether it may."""

    entry: bool
    quantity: Decimal
    """Already a multiple of the step."""
    price: Decimal
    last_price: Decimal | None
    minimum_notional: Decimal
    cash: Decimal
    position_notional: Decimal
    open_positions: int
    orders_this_second: int
    orders_today: int
    lost_today: Decimal
    """Net loss of the day as a positive number; a gain is zero."""
    halted: str | None = None
    flattening: bool = False
    armed: bool = True
    certified_enough: bool = True
    stale: bool = False
    tradable: bool = True
    unknown_outcome: bool = False


def check(wish: Wish, limits: Limits) -> str | None:
    """None where the order may go out, else the denial. For an exit only the venue's own rules and rates count."""
    notional = wish.quantity * wish.price
    always = (
        (not wish.armed, Denial.ACCOUNT_NOT_ARMED, ""),
        (not wish.tradable, Denial.INSTRUMENT_UNKNOWN, ""),
        (wish.unknown_outcome, Denial.ORDER_UNKNOWN_OUTCOME, ""),
        (
            wish.quantity <= ZERO or notional < wish.minimum_notional,
            Denial.QUANTITY_TOO_SMALL,
            f"notional={notional:.2f} minimum={wish.minimum_notional}",
        ),
    )
    for denied, denial, detail in (*always, *(_entry_rules(wish, limits, notional) if wish.entry else ())):
        if denied:
            return f"{denial}: {detail}".rstrip(": ")
    return None


def _entry_rules(wish: Wish, limits: Limits, notional: Decimal) -> tuple[tuple[bool, Denial, str], ...]:
    position = wish.position_notional + notional
    far = wish.last_price is not None and abs(wish.price / wish.last_price - 1) > PRICE_TOLERANCE
    return (
        (wish.halted is not None, Denial.HALT_ACTIVE, f"scope={wish.halted}"),
        (wish.flattening, Denial.ENGINE_FLATTENING, ""),
        (not wish.certified_enough, Denial.SIGNAL_UNCERTIFIED, ""),
        (wish.stale, Denial.SIGNAL_STALE, ""),
        (far, Denial.PRICE_SANITY, f"price={wish.price} last={wish.last_price}"),
        (
            notional > limits.max_order_notional,
            Denial.NOTIONAL_ORDER,
            f"notional={notional:.2f} limit={limits.max_order_notional:.2f}",
        ),
        (
            position > limits.max_position_notional,
            Denial.NOTIONAL_POSITION,
            f"position={position:.2f} limit={limits.max_position_notional:.2f}",
        ),
        (
            wish.open_positions >= limits.max_open_positions,
            Denial.POSITIONS_TOO_MANY,
            f"open={wish.open_positions} limit={limits.max_open_positions}",
        ),
        (notional > wish.cash, Denial.BALANCE_SHORT, f"notional={notional:.2f} cash={wish.cash:.2f}"),
        (
            wish.lost_today >= limits.max_daily_loss,
            Denial.LOSS_DAILY,
            f"lost={wish.lost_today:.2f} limit={limits.max_daily_loss:.2f}",
        ),
        (
            wish.orders_this_second >= limits.max_orders_per_second,
            Denial.RATE_SECOND,
            f"orders={wish.orders_this_second} limit={limits.max_orders_per_second}",
        ),
        (
            wish.orders_today >= limits.max_orders_per_day,
            Denial.RATE_DAY,
            f"orders={wish.orders_today} limit={limits.max_orders_per_day}",
        ),
    )
