"""Every reason for which risk keeps an order back: its code, what it means, what to do, and whether exits are held to it.

A denial reads `CATEGORY_CONDITION: key=value …`. docs/denials.md is made from this table and from the rules of the
markets (`denials_page.py`); the table is what a reader of an intent's `denial` looks up.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Denial(StrEnum):
    """Why an intent was not sent."""

    HALT_ACTIVE = "HALT_ACTIVE"
    ENGINE_FLATTENING = "ENGINE_FLATTENING"
    BREAKER_OPEN = "BREAKER_OPEN"
    ACCOUNT_NOT_ARMED = "ACCOUNT_NOT_ARMED"
    BOOKS_DIFFER = "BOOKS_DIFFER"
    AUTH_STALE = "AUTH_STALE"
    ADDRESS_CHANGED = "ADDRESS_CHANGED"
    SESSION_ENDING = "SESSION_ENDING"
    SIGNAL_UNCERTIFIED = "SIGNAL_UNCERTIFIED"
    SIGNAL_STALE = "SIGNAL_STALE"
    INSTRUMENT_UNKNOWN = "INSTRUMENT_UNKNOWN"
    ORDER_UNKNOWN_OUTCOME = "ORDER_UNKNOWN_OUTCOME"
    INTENT_DUPLICATE = "INTENT_DUPLICATE"
    ORDER_SELF_TRADE = "ORDER_SELF_TRADE"
    PRICE_INVALID = "PRICE_INVALID"
    PRICE_SANITY = "PRICE_SANITY"
    QUANTITY_STEP = "QUANTITY_STEP"
    QUANTITY_TOO_SMALL = "QUANTITY_TOO_SMALL"
    QUANTITY_ORDER = "QUANTITY_ORDER"
    LIMITS_MISSING = "LIMITS_MISSING"
    NOTIONAL_ORDER = "NOTIONAL_ORDER"
    NOTIONAL_POSITION = "NOTIONAL_POSITION"
    NOTIONAL_GROSS = "NOTIONAL_GROSS"
    POSITIONS_TOO_MANY = "POSITIONS_TOO_MANY"
    ORDERS_OPEN = "ORDERS_OPEN"
    BALANCE_SHORT = "BALANCE_SHORT"
    MARGIN_SHORT = "MARGIN_SHORT"
    MARGIN_UNKNOWN = "MARGIN_UNKNOWN"
    LOSS_DAILY = "LOSS_DAILY"
    LOSS_DRAWDOWN = "LOSS_DRAWDOWN"
    RATE_SECOND = "RATE_SECOND"
    RATE_MINUTE = "RATE_MINUTE"
    RATE_DAY = "RATE_DAY"
    LEGS_INVALID = "LEGS_INVALID"
    LEG_UNPROTECTED = "LEG_UNPROTECTED"
    LEG_UNAVAILABLE = "LEG_UNAVAILABLE"


@dataclass(frozen=True)
class About:
    """What the documentation says of a code."""

    meaning: str
    remedy: str
    exits_too: bool = False
    """Whether an order that only leaves a position is held to it: then the venue itself would refuse it."""


LOWER = "Lower the strategy's share of capital, or have an admin raise the limit (`PUT /api/risk-limits`)."
TOMORROW = "Entries go on with the next trading day; an admin may raise the limit."
ABOUT: Mapping[Denial, About] = {
    Denial.HALT_ACTIVE: About(
        "A halt holds for the platform, the group, the user or the account.",
        "See who set it and why: `trading-platform halt show`; clear it with the typed words.",
    ),
    Denial.ENGINE_FLATTENING: About(
        "The account's positions are being left: only exits go out.", "Clear the halt, or set the group to RUN."
    ),
    Denial.BREAKER_OPEN: About(
        "A circuit breaker of the market or of the venue is open.",
        "It arms again by its rule; the dashboard's Risk page shows when.",
    ),
    Denial.ACCOUNT_NOT_ARMED: About(
        "A live account that its owner has not armed.", "Its owner arms it by typed confirmation.", exits_too=True
    ),
    Denial.BOOKS_DIFFER: About(
        "The account's books do not match its venue's, or the venue does not answer for it: it is set aside, alone.",
        "See the difference on the health page; the account is compared again every few seconds, and goes on by itself.",
    ),
    Denial.AUTH_STALE: About(
        "The account's session at the broker has ended or was never begun.", "Log in to the broker again."
    ),
    Denial.ADDRESS_CHANGED: About(
        "Orders would leave from another address than the one registered at the broker.",
        "Send from the registered address, or register this one.",
    ),
    Denial.SESSION_ENDING: About(
        "The subscription holds nothing overnight (`overnight` false), and its positions are being left ahead of the "
        "session's end.",
        "Nothing: entries go on with the next session. To hold positions overnight, set `overnight` of the subscription.",
    ),
    Denial.SIGNAL_UNCERTIFIED: About(
        "A live account takes certified signals alone.", "Wait for certification, or let the owner allow it in words."
    ),
    Denial.SIGNAL_STALE: About("The signal's time to act is over.", "Nothing: the next bar brings a new one."),
    Denial.INSTRUMENT_UNKNOWN: About(
        "The venue does not trade it now.", "Look at the venue's instrument list.", exits_too=True
    ),
    Denial.ORDER_UNKNOWN_OUTCOME: About(
        "An order in this symbol has an unknown outcome or still works; it is settled first.",
        "Nothing: it is asked for on a schedule. The order page shows it.", exits_too=True,
    ),
    Denial.INTENT_DUPLICATE: About(
        "The same decision (account, strategy, symbol, bar, purpose) was made already.", "Nothing: one order is sent."
    ),
    Denial.ORDER_SELF_TRADE: About(
        "The same person has an order on the other side of this contract, so the two could trade with each other.",
        "Nothing: it is entered once the other order is done.",
    ),
    Denial.PRICE_INVALID: About("The signal has no positive price.", "Check the data that it was made from."),
    Denial.PRICE_SANITY: About(
        "The signal's price is too far from the last one known.", "Check the data; the next bar is judged anew."
    ),
    Denial.QUANTITY_STEP: About(
        "The quantity is no multiple of the instrument's step or lot.", "A defect: report it.", exits_too=True
    ),
    Denial.QUANTITY_TOO_SMALL: About(
        "Less than one step, or below the venue's smallest order.",
        "Give the strategy a larger share of capital; for an exit, what is left is dust.", exits_too=True,
    ),
    Denial.QUANTITY_ORDER: About("More units than one order may have.", LOWER),
    Denial.LIMITS_MISSING: About(
        "The user has no limits in the account's currency: nothing may be entered until somebody has set them.",
        "An admin sets them: `PUT /api/risk-limits` with that currency.",
    ),
    Denial.NOTIONAL_ORDER: About("Above the largest order of the scope.", LOWER),
    Denial.NOTIONAL_POSITION: About("The position would be above the scope's largest.", LOWER),
    Denial.NOTIONAL_GROSS: About("All positions together would be above the scope's limit.", LOWER),
    Denial.POSITIONS_TOO_MANY: About("The scope holds as many positions as allowed.", LOWER),
    Denial.ORDERS_OPEN: About("As many orders are working as allowed.", "Wait until some are done, or cancel them."),
    Denial.BALANCE_SHORT: About("The account's cash or margin does not cover it.", "Pay in, or trade smaller."),
    Denial.MARGIN_SHORT: About(
        "By the broker's own reckoning, and 2 % on top for moving prices and charges, an entry in a derivative needs more "
        "than the entries before it leave available.",
        "Pay in, trade smaller, or free margin that other positions block.",
    ),
    Denial.MARGIN_UNKNOWN: About(
        "The broker did not say what an entry in a derivative would block, or what is available.",
        "Nothing: the next signal asks again. If it lasts, look at the broker's status and at the account's log-in.",
    ),
    Denial.LOSS_DAILY: About("The scope lost as much today as allowed.", TOMORROW),
    Denial.LOSS_DRAWDOWN: About(
        "The account is as far below its highest equity as allowed.", "An admin raises the limit after a review."
    ),
    Denial.RATE_SECOND: About("As many orders in this second as allowed.", "Nothing: the next second has room."),
    Denial.RATE_MINUTE: About("As many orders in this minute as allowed.", "Nothing: the next minute has room."),
    Denial.RATE_DAY: About("As many orders today as allowed.", TOMORROW),
    Denial.LEGS_INVALID: About("Legs that are no set: fewer than two, one contract twice, no whole lots.", "Mend the set."),
    Denial.LEG_UNPROTECTED: About(
        "A leg sells more than the bought legs of the set protect, or is entered before its protection is filled.",
        "Add a protective leg, or sell less; an entry is tried again with the next signal.",
    ),
    Denial.LEG_UNAVAILABLE: About(
        "A leg that an entry needs, the put of a hedge or a call of a spread, is not listed, not quoted, held already, or may "
        "itself not be traded.",
        "See the denial of the leg beside it; or trade without one (`hedge_away`, `spread_away` of the subscription).",
    ),
}  # fmt: skip


def said(denial: str, **values: object) -> str:
    """`CODE: key=value key=value`, the form in which a denial is kept and shown.

    >>> said(Denial.RATE_DAY, orders=50, limit=50)
    'RATE_DAY: orders=50 limit=50'
    """
    detail = " ".join(f"{name}={value}" for name, value in values.items())
    return f"{denial}: {detail}".rstrip(": ")
