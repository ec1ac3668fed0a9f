"""What a broker's instruments dump lists: shares, futures and options, found by symbol, token, name and expiry.

The dump is a CSV that is generated once a day (columns of Kite Connect's GET /instruments). A contract is known by
(exchange, tradingsymbol) *of a day*: tokens of derivatives are used again after expiry, lots and ticks change. So a
`ContractBook` is of one day, and whoever keeps books keeps them by day.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Literal, cast

Kind = Literal["EQ", "FUT", "CE", "PE"]
EXCHANGES = ("NSE", "BSE", "NFO", "BFO", "CDS", "BCD", "MCX", "NCO")
SEGMENT_OF_TOKEN = {
    1: "NSE", 2: "NFO", 3: "CDS", 4: "BSE", 5: "BFO", 6: "BCD", 7: "MCX", 8: "MCXSX", 9: "INDICES", 12: "NCO",
}  # fmt: skip
"""The low byte of an instrument token; the rest is the exchange's own token."""
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
WEEKLY_MONTHS = "123456789OND"
_MONTHLY = re.compile(
    rf"^(?P<name>.+?)(?P<year>\d\d)(?P<month>{'|'.join(MONTHS)})(?:(?P<strike>[\d.]+)(?P<kind>CE|PE)|FUT)$"
)
_WEEKLY = re.compile(
    rf"^(?P<name>.+?)(?P<year>\d\d)(?P<month>[{WEEKLY_MONTHS}])(?P<day>\d\d)(?P<strike>[\d.]+)(?P<kind>CE|PE)$"
)


class BadDumpError(ValueError):
    """An instruments dump that cannot be read; the message names the line and what was expected."""


class UnknownContractError(LookupError):
    """No such contract on that day."""


@dataclass(frozen=True, slots=True)
class Contract:
    """One row of the dump. Money in rupees; `strike` is 0 and `expiry` None where they do not apply."""

    instrument_token: int
    exchange_token: int
    tradingsymbol: str
    name: str
    last_price: Decimal
    expiry: date | None
    strike: Decimal
    tick_size: Decimal
    lot_size: int
    instrument_type: Kind
    segment: str
    exchange: str

    @property
    def is_option(self) -> bool:
        return self.instrument_type in ("CE", "PE")

    @property
    def is_future(self) -> bool:
        return self.instrument_type == "FUT"

    @property
    def is_derivative(self) -> bool:
        return self.instrument_type != "EQ"

    @property
    def is_index(self) -> bool:
        """A level that is published and cannot be bought."""
        return self.segment == "INDICES"


COLUMNS = tuple(each.name for each in fields(Contract))


@dataclass(frozen=True)
class OptionChain:
    """All options of one name and expiry, by strike."""

    name: str
    expiry: date
    calls: dict[Decimal, Contract] = field(default_factory=dict)
    puts: dict[Decimal, Contract] = field(default_factory=dict)

    @property
    def strikes(self) -> list[Decimal]:
        return sorted(self.calls.keys() | self.puts.keys())

    def at_the_money(self, spot: Decimal) -> Decimal:
        """The strike nearest to `spot`, the lower one where two are as near. Raises `UnknownContractError`."""
        if not self.strikes:
            raise UnknownContractError(f"{self.name} has no options that expire on {self.expiry}")
        return min(self.strikes, key=lambda strike: (abs(strike - spot), strike))

    def by_moneyness(self, spot: Decimal, steps: int, kind: Literal["CE", "PE"]) -> Contract:
        """The option `steps` strikes out of the money (in the money where negative). Raises `UnknownContractError`."""
        side = self.calls if kind == "CE" else self.puts
        strikes = sorted(side)
        if not strikes:
            raise UnknownContractError(f"{self.name} has no {kind} that expires on {self.expiry}")
        nearest = min(range(len(strikes)), key=lambda at: (abs(strikes[at] - spot), strikes[at]))
        place = nearest + (steps if kind == "CE" else -steps)
        if not 0 <= place < len(strikes):
            raise UnknownContractError(
                f"{self.name} {self.expiry} {kind}: {steps} steps from {strikes[nearest]} is beyond the listed strikes "
                f"{strikes[0]} to {strikes[-1]}"
            )
        return side[strikes[place]]


class ContractBook:
    """The dump of one day."""

    def __init__(self, contracts: Iterable[Contract], day: date) -> None:
        self.day = day
        self._by_symbol: dict[tuple[str, str], Contract] = {}
        self._by_token: dict[int, Contract] = {}
        self._derivatives: dict[str, list[Contract]] = {}
        for contract in contracts:
            self._by_symbol[contract.exchange, contract.tradingsymbol] = contract
            self._by_token[contract.instrument_token] = contract
            if contract.is_derivative:
                self._derivatives.setdefault(contract.name, []).append(contract)

    def __len__(self) -> int:
        return len(self._by_symbol)

    def __iter__(self) -> Iterator[Contract]:
        return iter(self._by_symbol.values())

    @classmethod
    def from_csv(cls, data: bytes, day: date) -> "ContractBook":
        """Read a dump as the broker sends it (already unzipped). Raises `BadDumpError`."""
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as problem:
            raise BadDumpError(f"the instruments dump is no text; unzip it first: {problem}") from problem
        lines = csv.DictReader(io.StringIO(text))
        missing = set(COLUMNS) - set(lines.fieldnames or ())
        if missing:
            raise BadDumpError(f"the instruments dump lacks {sorted(missing)}; it has {lines.fieldnames}")
        return cls((_contract(row, number) for number, row in enumerate(lines, 2)), day)

    def to_csv(self) -> bytes:
        """The dump in the broker's own column order."""
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(COLUMNS)
        for contract in self:
            lines.writerow(
                "" if value is None else value for value in (getattr(contract, column) for column in COLUMNS)
            )
        return text.getvalue().encode()

    def get(self, exchange: str, tradingsymbol: str) -> Contract:
        """Raises `UnknownContractError`."""
        found = self._by_symbol.get((exchange, tradingsymbol))
        if found is None:
            raise UnknownContractError(
                f"{exchange}:{tradingsymbol} is not in the instruments of {self.day}: it may have expired or been "
                "renamed. Names are exactly those of the dump"
            )
        return found

    def by_token(self, token: int) -> Contract:
        found = self._by_token.get(token)
        if found is None:
            raise UnknownContractError(f"no instrument of {self.day} has the token {token}")
        return found

    def expiries(self, name: str, kind: Literal["FUT", "OPT"] = "OPT") -> list[date]:
        """Expiries that are listed, as the dump has them: never computed."""
        return sorted({each.expiry for each in self._of(name, kind) if each.expiry is not None})

    def futures(self, name: str) -> list[Contract]:
        """By expiry, the nearest first."""
        return sorted(self._of(name, "FUT"), key=lambda each: each.expiry or date.max)

    def future(self, name: str, today: date, roll_days: int = 0) -> Contract:
        """The nearest future with at least `roll_days` days left. Raises `UnknownContractError`."""
        for contract in self.futures(name):
            if contract.expiry is not None and (contract.expiry - today).days >= roll_days:
                return contract
        raise UnknownContractError(f"no future of {name} expires {roll_days} days or more after {today}")

    def chain(self, name: str, expiry: date) -> OptionChain:
        """Empty where nothing of that name expires then."""
        chain = OptionChain(name, expiry)
        for contract in self._of(name, "OPT"):
            if contract.expiry == expiry:
                (chain.calls if contract.instrument_type == "CE" else chain.puts)[contract.strike] = contract
        return chain

    def next_expiry(self, name: str, today: date, roll_days: int = 0, kind: Literal["FUT", "OPT"] = "OPT") -> date:
        """The nearest expiry at least `roll_days` days away. Raises `UnknownContractError`."""
        for expiry in self.expiries(name, kind):
            if (expiry - today).days >= roll_days:
                return expiry
        raise UnknownContractError(f"nothing of {name} expires {roll_days} days or more after {today}")

    def _of(self, name: str, kind: Literal["FUT", "OPT"]) -> list[Contract]:
        return [each for each in self._derivatives.get(name, ()) if each.is_option == (kind == "OPT")]


@dataclass(frozen=True, slots=True)
class SymbolParts:
    """What a derivative's symbol says, for showing it. `day` is None for monthly expiries: the symbol has no day."""

    name: str
    year: int
    month: int
    day: int | None
    strike: Decimal | None
    kind: Kind


def parse_symbol(tradingsymbol: str) -> SymbolParts | None:
    """The parts of a derivative's symbol, None for anything else. For showing only: trade by the dump's rows.

    >>> parse_symbol("NIFTY2580724400CE")
    SymbolParts(name='NIFTY', year=2025, month=8, day=7, strike=Decimal('24400'), kind='CE')
    >>> parse_symbol("NIFTY26NOVFUT").month
    11
    """
    if found := _MONTHLY.match(tradingsymbol):
        strike = found["strike"]
        kind = cast(Kind, found["kind"] or "FUT")
        month = MONTHS.index(found["month"]) + 1
        return SymbolParts(
            found["name"], 2000 + int(found["year"]), month, None, Decimal(strike) if strike else None, kind
        )
    if found := _WEEKLY.match(tradingsymbol):
        month = WEEKLY_MONTHS.index(found["month"]) + 1
        if 1 <= int(found["day"]) <= 31:
            return SymbolParts(
                found["name"], 2000 + int(found["year"]), month, int(found["day"]), Decimal(found["strike"]),
                cast(Kind, found["kind"]),
            )  # fmt: skip
    return None


def segment_of(token: int) -> str:
    """Which segment an instrument token belongs to, by its low byte. Raises `UnknownContractError`.

    >>> segment_of(408065)
    'NSE'
    """
    found = SEGMENT_OF_TOKEN.get(token & 0xFF)
    if found is None:
        raise UnknownContractError(f"token {token} is of no known segment (low byte {token & 0xFF})")
    return found


def _contract(row: dict[str, str], line: int) -> Contract:
    try:
        kind = row["instrument_type"]
        if kind not in ("EQ", "FUT", "CE", "PE"):
            raise ValueError(f"instrument_type {kind!r} is none of EQ, FUT, CE, PE")
        return Contract(
            instrument_token=int(row["instrument_token"]),
            exchange_token=int(row["exchange_token"]),
            tradingsymbol=row["tradingsymbol"],
            name=row["name"],
            last_price=Decimal(row["last_price"] or 0),
            expiry=date.fromisoformat(row["expiry"]) if row["expiry"] else None,
            strike=Decimal(row["strike"] or 0),
            tick_size=Decimal(row["tick_size"]),
            lot_size=int(row["lot_size"]),
            instrument_type=cast(Kind, kind),
            segment=row["segment"],
            exchange=row["exchange"],
        )
    except (ValueError, InvalidOperation, TypeError) as problem:
        raise BadDumpError(f"line {line} of the instruments dump ({row.get('tradingsymbol')}): {problem}") from problem
