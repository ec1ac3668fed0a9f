"""What a failure means: the error catalogue as data (`errors.toml`), and the one function that reads it.

    meaning = meaning_of(failure, "place")        # code, outcome, remedy
    result = as_result(failure, "place")          # the same as an answer of the order door

Unmatched texts are UNCLASSIFIED: refused where the broker said so with HTTP 400, ambiguous where it may have acted. Nothing
but `Throttled` may be sent again by itself.
"""

import re
import tomllib
from collections.abc import Sequence
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from trading_platform.venues.port import Ambiguous, AuthLost, IpNotAllowed, Refused, Throttled
from trading_platform.venues.zerodha.transport import Failure

Where = Literal["place", "modify", "cancel", "session", "quote", "historical", "read", "rejection"]
Outcome = Literal["refused", "throttled", "ambiguous", "auth", "ip"]
FILE = Path(__file__).with_name("errors.toml")
WRITES = frozenset({"place", "modify", "cancel"})
SHORTEST_WAIT = timedelta(seconds=1)
UNCLASSIFIED = "UNCLASSIFIED"


class Meaning(BaseModel):
    """One row of the catalogue."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int
    where: str
    error_type: str | None = None
    http: frozenset[int] = frozenset()
    pattern: str
    code: str
    outcome: Outcome
    remedy: str
    example: str

    def fits(self, failure: Failure, where: Where) -> bool:
        place = self.where in ("any", where) or (self.where == "write" and where in WRITES)
        kind = self.error_type is None or failure.error_type in (None, self.error_type)
        status = not self.http or failure.status in self.http
        return place and kind and status and re.search(self.pattern, failure.message, re.IGNORECASE) is not None


class State(BaseModel):
    """One state of the catalogue that no request is answered with: it is found when books are read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int
    state: str
    code: str
    outcome: Outcome
    remedy: str


def meaning_of(failure: Failure, where: Where) -> Meaning:
    """The row of the catalogue, or one that says UNCLASSIFIED and does nothing rash."""
    for row in catalogue():
        if row.fits(failure, where):
            return row
    return Meaning(
        number=0, where=where, pattern="", code=UNCLASSIFIED, outcome=_unclassified(failure, where), example="",
        remedy="look at the text; add it to errors.toml",
    )  # fmt: skip


def meaning_of_rejection(status_message: str | None, raw: str | None) -> Meaning:
    """Why an order of the book was rejected: the raw text first, which names the exchange's own code."""
    for text in (raw, status_message):
        if text:
            found = meaning_of(Failure(None, None, text), "rejection")
            if found.code != UNCLASSIFIED:
                return found
    return meaning_of(Failure(400, None, status_message or raw or "no reason given"), "rejection")


def as_result(failure: Failure, where: Where) -> Refused | Throttled | AuthLost | IpNotAllowed | Ambiguous:
    """A failed order call as the door's answer; the broker's own error type and text stay in it."""
    meaning = meaning_of(failure, where)
    if not failure.sent and meaning.outcome == "ambiguous":
        return Throttled(SHORTEST_WAIT)
    text = f"{failure.error_type or 'no error type'}: {failure.message}"
    if meaning.outcome == "refused":
        return Refused(meaning.code, text)
    if meaning.outcome == "throttled":
        return Throttled(max(SHORTEST_WAIT, timedelta(seconds=failure.retry_after_seconds or 0)))
    if meaning.outcome == "auth":
        return AuthLost(text)
    return IpNotAllowed(text) if meaning.outcome == "ip" else Ambiguous(f"{meaning.code}: {failure}")


def found_state(state: str) -> State:
    """A state of the catalogue by its name. Raises KeyError for one that is not there."""
    return states()[state]


def _unclassified(failure: Failure, where: Where) -> Outcome:
    if failure.status == 429:
        return "throttled"
    if failure.status == 403:
        return "auth" if failure.error_type == "TokenException" else "refused"
    final = failure.status is not None and 400 <= failure.status < 500
    return "refused" if final or where == "rejection" else "ambiguous"


@cache
def catalogue() -> Sequence[Meaning]:
    """All rows, in the order in which they are tried."""
    rows = [Meaning.model_validate(row) for row in tomllib.loads(FILE.read_text())["error"]]
    # Catch-alls (an empty pattern) after everything that names a text.
    return sorted(rows, key=lambda row: not row.pattern)


@cache
def states() -> dict[str, State]:
    """{name: state} of what is found rather than answered."""
    rows = [State.model_validate(row) for row in tomllib.loads(FILE.read_text())["state"]]
    return {row.state: row for row in rows}
