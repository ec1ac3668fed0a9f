"""How much one order may be: lots, and the exchange's freeze quantity above which an order must be split.

The freeze quantity is not a multiple of the lot, so the largest order is the largest multiple below it: NIFTY 1,800 at
lots of 65 is 1,755. The broker's API has no freeze quantities; a refusal's text has them (`FreezeTable.learn`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from functools import cache

from trading_platform.markets.contracts import Contract
from trading_platform.markets.denials import Denial, untradable
from trading_platform.markets.effective import DATA, Effective, RuleTable, load


class QuantityRow(Effective):
    name: str
    lot: int
    freeze: int


class ShareLimitRow(Effective):
    exchange: str
    quantity: int


@dataclass
class FreezeTable:
    """Freeze quantities by underlying; what a refusal of today taught wins over the table."""

    learnt: dict[str, int] = field(default_factory=dict)

    def learn(self, name: str, freeze: int) -> None:
        """Take a freeze quantity from the broker's own refusal."""
        self.learnt[name] = freeze

    def freeze(self, contract: Contract, day: date) -> int | None:
        """None where none is known: the exchange then decides, and its refusal is learnt from."""
        if not contract.is_derivative:
            found = _share_limits().find(contract.exchange, day)
            return found.row.quantity if found else None
        if contract.name in self.learnt:
            return self.learnt[contract.name]
        known = _quantities().find(contract.name, day)
        return known.row.freeze if known else None

    def max_order(self, contract: Contract, day: date) -> int | None:
        """The largest quantity of one order, a multiple of the lot."""
        freeze = self.freeze(contract, day)
        if freeze is None or contract.lot_size <= 0:
            return None
        return freeze // contract.lot_size * contract.lot_size

    def slices(self, quantity: int, contract: Contract, day: date) -> list[int]:
        """Split a quantity into orders within the freeze, all of them multiples of the lot, the largest first.

        Raises ValueError for a quantity that is not a positive multiple of the lot, and for a lot above the freeze: check
        it before.
        """
        largest = self.max_order(contract, day)
        denial = check_lot(quantity, contract)
        if denial is None and largest == 0:
            denial = self.check(quantity, contract, day)
        if denial is not None:
            raise ValueError(str(denial))
        if largest is None or quantity <= largest:
            return [quantity]
        whole, rest = divmod(quantity, largest)
        return [largest] * whole + ([rest] if rest else [])

    def check(self, quantity: int, contract: Contract, day: date) -> Denial | None:
        """Whether one order may have this quantity."""
        if denial := check_lot(quantity, contract):
            return denial
        largest = self.max_order(contract, day)
        if largest == 0:
            return Denial(
                "QUANTITY_FREEZE",
                f"one lot of {contract.tradingsymbol} ({contract.lot_size}) is above the freeze quantity "
                f"{self.freeze(contract, day)}: one of the two is out of date; load today's instruments",
            )
        if largest is not None and quantity > largest:
            return Denial(
                "QUANTITY_FREEZE",
                f"{quantity} of {contract.tradingsymbol} is above the largest order of {largest} "
                f"({largest // contract.lot_size} lots); split it",
                Decimal(largest),
            )
        return None


def check_lot(quantity: int, contract: Contract) -> Denial | None:
    """Whether a quantity is a positive multiple of the contract's own lot."""
    lot = contract.lot_size
    if lot <= 0:
        return untradable(contract.tradingsymbol)
    if quantity > 0 and quantity % lot == 0:
        return None
    nearest = max(quantity // lot, 1) * lot
    return Denial(
        "QUANTITY_LOT", f"{quantity} of {contract.tradingsymbol} is not a positive multiple of its lot of {lot}",
        Decimal(nearest),
    )  # fmt: skip


def lot_of(name: str, day: date) -> int | None:
    """The lot of an index by circular, for contracts that are not in a dump (derived futures of a replay)."""
    found = _quantities().find(name, day)
    return found.row.lot if found else None


def known_freezes(day: date) -> Mapping[str, int]:
    """{underlying: freeze quantity} on a day, for showing."""
    table = _quantities()
    return {str(name): table.at(name, day).row.freeze for name in table.keys()}  # noqa: SIM118 - not a mapping


@cache
def _quantities() -> RuleTable[QuantityRow]:
    return load(DATA / "quantities.toml", "quantity", QuantityRow, lambda row: row.name)


@cache
def _share_limits() -> RuleTable[ShareLimitRow]:
    return load(DATA / "quantities.toml", "share_limit", ShareLimitRow, lambda row: row.exchange)
