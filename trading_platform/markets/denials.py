"""A named refusal: which rule forbids something, and the nearest thing that it would allow."""

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Denial:
    """What a check says instead of letting an order out.

    `code` reads CATEGORY_CONDITION and is what programs look at; `message` is for people; `nearest` is the closest value
    that would pass, where there is one.
    """

    code: str
    message: str
    nearest: Decimal | None = None

    def __str__(self) -> str:
        hint = f" Nearest allowed: {self.nearest:f}." if self.nearest is not None else ""
        return f"{self.code}: {self.message}{hint}"


def untradable(tradingsymbol: str) -> Denial:
    """For what the dump lists with a lot or tick of zero: indices, which are published and not traded."""
    return Denial(
        "INSTRUMENT_UNTRADABLE", f"{tradingsymbol} has no lot and no tick: it is not traded; use its future or options"
    )
