"""How the dashboard reaches the API and the databases, and for how long an answer is kept.

Every failure is an `Unavailable`, whose text a person can act on; a mart that has not been built is an empty table.
Answers are kept by who may see them (`whose`): one user's books never serve another.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import httpx
import pandas as pd
import streamlit as st
from psycopg import errors
from sqlalchemy import text
from sqlalchemy.exc import OperationalError, ProgrammingError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from trading_platform.settings import settings
from trading_platform.storage.databases import Database, Databases, NoDatabaseError

COOKIE = "tp_session"
API_TIMEOUT_SECONDS = 5.0
LIVE_SECONDS, HISTORY_SECONDS = 3, 20
"""How old an answer may be: of what changes with every bar, and of marts and the registry."""

Pairs = tuple[tuple[str, str], ...]
EVERYBODY = ""
T = TypeVar("T")


class Unavailable(Exception):
    """Something this page needs does not answer. The text says what, and what to do."""


class LoggedOut(Exception):
    """The browser has no session, or it has ended."""


class Refused(Exception):
    """The API understood and said no. The text is its own."""


# --- the API ---------------------------------------------------------------------------------------------------------


def session_token() -> str | None:
    """The session cookie that the browser sent when it opened this page."""
    return st.context.cookies.get(COOKIE)


def ask(path: str) -> Any:
    """An answer of this very moment."""
    return _request(_token(), "GET", path, {})


def ask_live(whose: str, path: str, **parameters: object) -> Any:
    """An answer that may be a few seconds old: that of one viewer (`whose` is the user id), or `EVERYBODY`'s."""
    return _kept_live(whose, path, _pairs(parameters), _token())


def ask_kept(path: str, **parameters: object) -> Any:
    """An answer that may be as old as the marts; only for what all users share."""
    return _kept(path, _pairs(parameters), _token())


def change(method: str, path: str, parameters: Mapping[str, str] | None = None, body: object = None) -> None:
    """Ask for a change, once; what was kept is forgotten, so that the change shows. Raises `Refused`."""
    _request(_token(), method, path, parameters or {}, body)
    _kept_live.clear()


@st.cache_data(ttl=LIVE_SECONDS, max_entries=1_000, show_spinner=False)
def _kept_live(whose: str, path: str, parameters: Pairs, _token: str) -> Any:
    return _request(_token, "GET", path, dict(parameters))


@st.cache_data(ttl=HISTORY_SECONDS, max_entries=200, show_spinner=False)
def _kept(path: str, parameters: Pairs, _token: str) -> Any:
    return _request(_token, "GET", path, dict(parameters))


@st.cache_resource
def _client() -> httpx.Client:
    return httpx.Client(base_url=settings().api_url, timeout=API_TIMEOUT_SECONDS)


def _token() -> str:
    token = session_token()
    if token is None:
        raise LoggedOut
    return token


def _pairs(parameters: Mapping[str, object]) -> Pairs:
    return tuple((name, str(value)) for name, value in parameters.items() if value is not None)


def _request(token: str, method: str, path: str, parameters: Mapping[str, str], body: object = None) -> Any:
    # As a bearer token: the API takes a cookie for a change only from the browser itself.
    headers = {"Authorization": f"Bearer {token}"}
    try:
        response = _client().request(method, path, params=parameters, json=body, headers=headers)
    except httpx.HTTPError as error:
        raise Unavailable(
            f"The API does not answer ({type(error).__name__}). It may be starting: reload in a few seconds."
        ) from None
    if response.status_code == httpx.codes.UNAUTHORIZED:
        raise LoggedOut
    if response.is_success:
        return response.json() if response.content else None
    refused = response.status_code in (403, 404, 409, 422)
    raise (Refused if refused else Unavailable)(_problem(response))


def _problem(response: httpx.Response) -> str:
    """What the API says was wrong, was expected, and is to be done."""
    try:
        problem = response.json()
        parts = [f"{problem['title']}: {problem['detail']}."]
    except (ValueError, KeyError, TypeError):
        return f"The API answered with status {response.status_code}. It may be starting: reload in a few seconds."
    parts += [f"Expected {problem['expected']}."] if problem.get("expected") else []
    parts += [problem["remedy"]] if problem.get("remedy") else []
    return " ".join(parts)


# --- the databases ---------------------------------------------------------------------------------------------------


def control(read: Callable[[Session], T]) -> T:
    """What `read` finds in the control database."""
    try:
        with _databases().control() as session:
            return read(session)
    except (SQLAlchemyError, NoDatabaseError) as error:
        raise _no_database(error) from None


@st.cache_data(ttl=HISTORY_SECONDS, max_entries=500, show_spinner=False)
def mart(sql: str, **parameters: object) -> pd.DataFrame:
    """Rows of the marts. Those of a user are kept under that user's id, which is one of the parameters."""
    try:
        with _databases().engine(Database.ANALYTICS).connect() as connection:
            result = connection.execute(text(sql), parameters)
            return pd.DataFrame(result.all(), columns=list(result.keys()))
    except ProgrammingError as error:
        if isinstance(error.orig, (errors.UndefinedTable, errors.InvalidSchemaName)):
            return pd.DataFrame()
        raise
    except (OperationalError, PoolTimeoutError, NoDatabaseError) as error:
        raise _no_database(error) from None


@st.cache_resource
def _databases() -> Databases:
    return Databases(settings())


def _no_database(error: Exception) -> Unavailable:
    if isinstance(error, NoDatabaseError):
        return Unavailable(str(error))
    return Unavailable("The database does not answer. It may be restarting: reload in a few seconds.")


# --- tables ----------------------------------------------------------------------------------------------------------


def table(rows: Sequence[Mapping[str, Any]], numbers: Sequence[str] = (), times: Sequence[str] = ()) -> pd.DataFrame:
    """A table of the API's rows: amounts as floats (for showing, not for reckoning), times as UTC."""
    found = pd.DataFrame(rows)
    if found.empty:
        return found
    for column in numbers:
        found[column] = pd.to_numeric(found[column])
    for column in times:
        found[column] = pd.to_datetime(found[column], utc=True, format="ISO8601")
    return found
