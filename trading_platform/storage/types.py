"""Column types that the tables share."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, cast

from sqlalchemy import DateTime, Dialect, MetaData, Numeric, String, Table, TypeDecorator
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


def metadata(schema: str) -> MetaData:
    """Metadata whose constraint names are stable, so that migrations can name what they change."""
    return MetaData(schema=schema, naming_convention=NAMING)


class UtcDateTime(TypeDecorator[datetime]):
    """timestamptz that refuses naive datetimes and always returns UTC ones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError(f"naive datetime {value!r}: times in the books are aware; attach UTC (or IST) first")
        return value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)


def table_of(model: type[DeclarativeBase]) -> Table:
    """The table behind mapped rows, for statements in which a mapped object each would take most of the time."""
    return cast(Table, model.__table__)


Text = Annotated[str, mapped_column(String)]
Time = Annotated[datetime, mapped_column(UtcDateTime())]
Money = Annotated[Decimal, mapped_column(Numeric(38, 12))]
"""Prices, quantities, amounts: exact decimals, 12 places (a wei-sized quantity is out of scope, a satoshi is not)."""
Json = Annotated[dict[str, Any], mapped_column(JSONB)]
