"""What trades cost in India, as a broker's contract note itemises it: by segment, side and date.

    note = charges_of("NSE", "intraday", [Leg("buy", 400, Decimal(1000)), Leg("sell", 400, Decimal(1100))], day)
    note.total, note.gst, note.rules_backdated

One `Leg` is one executed order: brokerage is of an order, not of a trade. GST is on brokerage, exchange charge and SEBI
fee. `raw` amounts are exact, as the broker's API gives them; a contract note rounds transaction tax and stamp duty to the
rupee and everything else to the paisa.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from typing import Literal

from trading_platform.markets.contracts import Contract
from trading_platform.markets.effective import DATA, Effective, RuleTable, load

Side = Literal["buy", "sell"]
ChargeSegment = Literal[
    "delivery", "intraday", "futures", "options", "currency_futures", "currency_options", "commodity_futures",
    "commodity_options",
]  # fmt: skip
Rounding = Literal["raw", "contract_note"]
FILE = DATA / "contract_note.toml"
ZERO = Decimal(0)
RUPEE, PAISA = Decimal(1), Decimal("0.01")
EXCHANGE_OF = {"NFO": "NSE", "BFO": "BSE", "BCD": "CDS", "NCO": "MCX"}
"""Derivatives are charged by the exchange that runs their segment."""


class BrokerageRow(Effective):
    segment: str
    rate: Decimal
    cap: Decimal
    flat: Decimal


class TaxRow(Effective):
    segment: str
    side: Side
    rate: Decimal


class ExchangeRow(Effective):
    exchange: str
    segment: str
    rate: Decimal
    fund: Decimal


class StampRow(Effective):
    segment: str
    rate: Decimal


class FlatRow(Effective):
    name: str
    value: Decimal


@dataclass(frozen=True, slots=True)
class Leg:
    """One executed order. `multiplier`: units of a contract beyond its quantity (commodities)."""

    side: Side
    quantity: int
    price: Decimal
    multiplier: Decimal = RUPEE

    @property
    def value(self) -> Decimal:
        return self.quantity * self.price * self.multiplier


@dataclass(frozen=True, slots=True)
class ContractNote:
    """Charges by head, in rupees. `rules_backdated`: some rate is younger than the trade."""

    turnover: Decimal
    brokerage: Decimal
    transaction_tax: Decimal
    exchange: Decimal
    sebi: Decimal
    gst: Decimal
    stamp: Decimal
    depository: Decimal
    rules_backdated: bool

    @property
    def total(self) -> Decimal:
        return (
            self.brokerage + self.transaction_tax + self.exchange + self.sebi + self.gst + self.stamp + self.depository
        )


def charges_of(
    exchange: str, segment: ChargeSegment, legs: Sequence[Leg], day: date, *, scrips_sold: int | None = None,
    rounding: Rounding = "raw",
) -> ContractNote:  # fmt: skip
    """Charges of the executed orders of one contract on one day.

    `scrips_sold`: how many scrips left the demat account, for the depository's charge; by default one where a delivery
    leg sells. Raises `NoRuleError` for an exchange or segment without rates.
    """
    brokerage_row = _brokerage().at(segment, day)
    exchange_row = _exchange().at((EXCHANGE_OF.get(exchange, exchange), segment), day)
    stamp_row, sebi_row, gst_row = _stamp().at(segment, day), _flat().at("sebi", day), _flat().at("gst", day)
    taxes = {side: _taxes().find((segment, side), day) for side in ("buy", "sell")}
    turnover = sum((leg.value for leg in legs), ZERO)
    brokerage = sum((_brokerage_of(brokerage_row.row, leg.value) for leg in legs), ZERO)
    tax = sum((leg.value * found.row.rate for leg in legs if (found := taxes[leg.side]) is not None), ZERO)
    exchange_charge, fund = turnover * exchange_row.row.rate, turnover * exchange_row.row.fund
    sebi = turnover * sebi_row.row.value
    gst = gst_row.row.value * (brokerage + exchange_charge + sebi)
    stamp = sum((leg.value for leg in legs if leg.side == "buy"), ZERO) * stamp_row.row.rate
    sold = scrips_sold if scrips_sold is not None else int(any(leg.side == "sell" for leg in legs))
    depository = sold * _flat().at("depository", day).row.value if segment == "delivery" else ZERO
    backdated = (
        brokerage_row.backdated, exchange_row.backdated, stamp_row.backdated, sebi_row.backdated, gst_row.backdated,
        *(found.backdated for found in taxes.values() if found),
    )  # fmt: skip
    note = ContractNote(
        turnover, brokerage, tax, exchange_charge + fund, sebi, gst, stamp, depository,
        rules_backdated=any(backdated),
    )  # fmt: skip
    return note if rounding == "raw" else _rounded(note)


def exercise_tax(intrinsic_value: Decimal, day: date) -> Decimal:
    """Transaction tax of a long option that expired in the money, paid by its holder. `intrinsic_value`: of the lot."""
    return intrinsic_value * _taxes().at(("exercise", "buy"), day).row.rate


def auto_square_off_charge(orders: int, day: date) -> Decimal:
    """What the broker takes for closing intraday positions itself, with GST."""
    return orders * _flat().at("auto_square_off", day).row.value * (1 + _flat().at("gst", day).row.value)


def segment_for(contract: Contract, product: str) -> ChargeSegment:
    """Which rates a trade has: by the contract, and for shares by whether they are kept (CNC, MTF) or not (MIS)."""
    kind: Literal["futures", "options"] = "options" if contract.is_option else "futures"
    if contract.exchange in ("CDS", "BCD"):
        return "currency_options" if kind == "options" else "currency_futures"
    if contract.exchange in ("MCX", "NCO"):
        return "commodity_options" if kind == "options" else "commodity_futures"
    if contract.is_derivative:
        return kind
    return "delivery" if product in ("CNC", "MTF") else "intraday"


def _brokerage_of(row: BrokerageRow, value: Decimal) -> Decimal:
    share = value * row.rate
    return row.flat + (min(share, row.cap) if row.cap else share)


def _rounded(note: ContractNote) -> ContractNote:
    def to(amount: Decimal, unit: Decimal) -> Decimal:
        return amount.quantize(unit, ROUND_HALF_UP)

    return replace(
        note,
        brokerage=to(note.brokerage, PAISA),
        transaction_tax=to(note.transaction_tax, RUPEE),
        exchange=to(note.exchange, PAISA),
        sebi=to(note.sebi, PAISA),
        gst=to(note.gst, PAISA),
        stamp=to(note.stamp, RUPEE),
        depository=to(note.depository, PAISA),
    )


@cache
def _brokerage() -> RuleTable[BrokerageRow]:
    return load(FILE, "brokerage", BrokerageRow, lambda row: row.segment)


@cache
def _taxes() -> RuleTable[TaxRow]:
    return load(FILE, "transaction_tax", TaxRow, lambda row: (row.segment, row.side))


@cache
def _exchange() -> RuleTable[ExchangeRow]:
    return load(FILE, "exchange_charge", ExchangeRow, lambda row: (row.exchange, row.segment))


@cache
def _stamp() -> RuleTable[StampRow]:
    return load(FILE, "stamp_duty", StampRow, lambda row: row.segment)


@cache
def _flat() -> RuleTable[FlatRow]:
    return load(FILE, "flat", FlatRow, lambda row: row.name)
