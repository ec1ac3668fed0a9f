"""Parameters of a request: read once, checked as Binance checks them, with its codes."""

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from urllib.parse import parse_qsl

import orjson

from trading_platform.sandbox.binance.errors import BinanceError

MOST_DECIMALS = 8
CLIENT_ID = re.compile(r"[\.A-Z\:/a-z0-9_-]{1,36}")
INTEGER = re.compile(r"\d{1,18}")
AMOUNT = re.compile(r"\d{1,20}(\.\d{1,20})?")


class Parameters(Mapping[str, str]):
    """Names and values; of a name in both the query and the body the query's value counts."""

    def __init__(self, query: str = "", body: str = "", values: Mapping[str, str] | None = None) -> None:
        sent = dict(parse_qsl(body, keep_blank_values=True)) | dict(parse_qsl(query, keep_blank_values=True))
        self._values = {name: value for name, value in (sent | dict(values or {})).items() if value != ""}

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def required(self, name: str) -> str:
        if name not in self._values:
            raise BinanceError(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")
        return self._values[name]

    def integer(self, name: str) -> int | None:
        value = self.get(name)
        if value is None:
            return None
        if not INTEGER.fullmatch(value):
            raise BinanceError(
                -1100, f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'."
            )
        return int(value)

    def amount(self, name: str) -> Decimal:
        """A mandatory decimal."""
        value = self.required(name)
        if not AMOUNT.fullmatch(value):
            raise BinanceError(
                -1100, f"Illegal characters found in parameter '{name}'; legal range is '^([0-9]{{1,20}})(\\.[0-9]{{1,20}})?$'."
            )  # fmt: skip
        if len(value.partition(".")[2].rstrip("0")) > MOST_DECIMALS:
            raise BinanceError(-1111, f"Parameter '{name}' has too much precision.")
        return Decimal(value)

    def number(self, name: str, otherwise: Decimal) -> Decimal:
        """An optional decimal of any precision."""
        try:
            return Decimal(self.get(name, otherwise))
        except InvalidOperation as error:
            raise BinanceError(-1100, f"Illegal characters found in parameter '{name}'.") from error

    def choice(self, name: str, values: tuple[str, ...], code: int, message: str) -> str:
        """A mandatory word out of a few."""
        value = self.required(name)
        if value not in values:
            raise BinanceError(code, message)
        return value

    def client_id(self, name: str, otherwise: str) -> str:
        value = self.get(name, otherwise)
        if not CLIENT_ID.fullmatch(value):
            raise BinanceError(
                -1100, f"Illegal characters found in parameter '{name}'; legal range is '^[a-zA-Z0-9-_]{{1,36}}$'."
            )
        return value

    def names(self, name: str) -> list[str]:
        """A JSON list of strings, such as `symbols`."""
        try:
            found = orjson.loads(self.required(name))
        except orjson.JSONDecodeError as error:
            raise BinanceError(-1100, f"Illegal characters found in parameter '{name}'.") from error
        if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
            raise BinanceError(-1100, f"Illegal characters found in parameter '{name}'.")
        return found

    def with_prefix(self, prefix: str) -> "Parameters":
        """Only those whose names begin with `prefix`, under the rest of their names: aboveStopPrice -> stopPrice."""
        renamed = {
            name.removeprefix(prefix)[:1].lower() + name.removeprefix(prefix)[1:]: value
            for name, value in self._values.items()
            if name.startswith(prefix)
        }
        return Parameters(values=renamed)

    def updated(self, **values: str | None) -> "Parameters":
        """With other values for some names; None leaves a name as it is."""
        return Parameters(values=self._values | {name: value for name, value in values.items() if value is not None})
