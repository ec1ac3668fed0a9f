"""Asking the broker: what changes nothing may be asked again, so a hiccup is no failure and a failure is one error.

    data = await ask(transport, "/orders")

Raises `QueryFailedError`, which never means "nothing there". A lost session is asked about once only.
"""

import asyncio
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, TypeVar

from trading_platform.venues.port import QueryFailedError
from trading_platform.venues.zerodha.errors import Where, meaning_of
from trading_platform.venues.zerodha.transport import Failure, Fields, KiteTransport, Success

PAUSES = (0.5, 2.0)
"""Between the attempts, in seconds; a throttled question waits as long as it was told, if that is longer."""
LONGEST_PAUSE = 5.0
Found = TypeVar("Found")


async def ask(
    transport: KiteTransport,
    path: str,
    *,
    query: Fields | None = None,
    json: object | None = None,
    where: Where = "read",
) -> Any:
    """`data` of the answer; a question with a JSON body (margins, charges) is a POST that changes nothing."""
    failure = None
    for pause in (*PAUSES, None):
        answer = await transport.call("GET" if json is None else "POST", path, query=query, json=json)
        if isinstance(answer, Success):
            return answer.data
        failure = answer
        if pause is None or not _worth_repeating(answer):
            break
        await asyncio.sleep(min(max(pause, answer.retry_after_seconds or 0.0), LONGEST_PAUSE))
    assert failure is not None
    meaning = meaning_of(failure, where)
    raise QueryFailedError(f"Zerodha did not answer {path}: {meaning.code}, {failure} ({meaning.remedy})")


def _worth_repeating(failure: Failure) -> bool:
    return failure.status is None or failure.status == 429 or failure.status >= 500


def rows_of(data: Any, reader: Callable[[Mapping[str, Any]], Found]) -> list[Found]:
    """Every row of a list, read. Raises `QueryFailedError` where it is no list or a row cannot be read."""
    if not isinstance(data, list):
        raise QueryFailedError(f"Zerodha sent a {type(data).__name__} where a list was expected")
    return [read(row, reader) for row in data]


def read(data: Any, reader: Callable[[Any], Found]) -> Found:
    """An answer that cannot be read is a question without an answer."""
    try:
        return reader(data)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise QueryFailedError(f"Zerodha's answer cannot be read: {error!r}") from error


def part(data: Any, name: str) -> Any:
    """One field of an object."""
    return read(data, lambda found: found[name])


def money(value: object) -> Decimal:
    """As the broker wrote it, exactly; nothing is zero."""
    return Decimal(str(value)) if value is not None else Decimal(0)
