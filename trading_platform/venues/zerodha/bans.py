"""The exchange's F&O ban list of a day: fetched or taken from a file, checked, and kept for the engines.

    fetch_and_take(databases, day, actor="dagster")          # what the schedule does before the open
    take(databases, data, day, source="a.csv", actor="ann")  # what an operator does who has the file by hand
    lists = await lists_from(session, day)                   # what an engine reads

What is not the list of that day (another day's, a page of errors, a file that was cut off) is refused with an alert and
never takes the place of a good one: without a list nothing new is opened in derivatives of single shares, and a list that
is wrong would be worse. The broker has no ban list of its own to ask for.

A day is one of the market's clock. A replay therefore goes by the lists of the days that it replays, where somebody has
loaded them from files of that time, and is as careful as a live market where nobody has.
"""

from datetime import date

import httpx
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from trading_platform.compliance.audit import record
from trading_platform.markets.position_limits import BadBanListError, BanList
from trading_platform.markets.sessions import is_trading_day
from trading_platform.observability.alerts import raise_alert, resolve_alert
from trading_platform.storage.control import BanListRow
from trading_platform.storage.databases import Databases
from trading_platform.venues.zerodha.vaulted import all_accounts

SOURCE, TITLE = "zerodha", "The F&O ban list is not loaded"
TIMEOUT_SECONDS = 15.0
EVERYBODY = "*"
HEADERS = {"User-Agent": "Mozilla/5.0 (compatible; trading-platform)", "Accept": "text/csv,text/plain,*/*"}
"""The exchange's servers leave requests without a browser's name unanswered."""


def needless(databases: Databases, day: date) -> str | None:
    """Why the list of a day is not to be fetched; None where it is wanted."""
    if not is_trading_day("NFO", day):
        return f"derivatives are not traded on {day}"
    if not any(account.live for account in all_accounts(databases)):
        return "no account at Zerodha is real; replays go by lists that are loaded by hand"
    with databases.control() as session:
        return f"the list of {day} is loaded" if loaded(session, day) is not None else None


def fetch_and_take(databases: Databases, day: date, *, actor: str) -> BanList:
    """Load the list of a day from the exchange. Raises `BadBanListError`, after an alert, for anything else."""
    url = databases.settings.ban_list_url
    try:
        answer = httpx.get(url, headers=HEADERS, timeout=TIMEOUT_SECONDS).raise_for_status()
    except httpx.HTTPError as error:
        refusal = BadBanListError(f"{url} did not send the F&O ban list: {error!r}")
        _say(databases, day, refusal)
        raise refusal from error
    return take(databases, answer.content, day, source=url, actor=actor)


def take(databases: Databases, data: bytes, day: date, *, source: str, actor: str) -> BanList:
    """Check a list and put it into force from the next look of every engine on; audited in all groups where it is news.

    Raises `BadBanListError`, after an alert, for what is not the list of that day; a list that was there stays.
    """
    try:
        found = BanList.from_csv(data, day)
    except BadBanListError as refusal:
        _say(databases, day, refusal)
        raise
    with databases.control() as session:
        before, newest = loaded(session, day), session.scalar(select(func.max(BanListRow.day)))
        values = {"underlyings": sorted(found.underlyings), "source": source, "fetched_at": func.now()}
        new = insert(BanListRow).values(day=day, **values)
        session.execute(new.on_conflict_do_update(index_elements=[BanListRow.day], set_=values))
        if newest is None or day >= newest:  # a list for a replay says nothing of today's
            resolve_alert(session, source=SOURCE, title=TITLE)
        if before != found:
            _audit(databases, before, found, source, actor)
    return found


def loaded(session: Session, day: date) -> BanList | None:
    """The list of a day; None where nobody has loaded one."""
    row = session.get(BanListRow, day)
    return None if row is None else _value(row)


async def lists_from(session: AsyncSession, day: date) -> dict[date, BanList]:
    """The lists of a day and of all later ones."""
    rows = await session.scalars(select(BanListRow).where(BanListRow.day >= day))
    return {row.day: _value(row) for row in rows}


def _value(row: BanListRow) -> BanList:
    return BanList(row.day, frozenset(row.underlyings))


def _audit(databases: Databases, before: BanList | None, found: BanList, source: str, actor: str) -> None:
    """Before the list is committed: an entry of a list that was not kept is seen, a list without its entry is not."""
    detail = {
        "day": found.day.isoformat(), "underlyings": sorted(found.underlyings), "source": source,
        "before": None if before is None else sorted(before.underlyings),
    }  # fmt: skip
    for group_id in databases.group_ids():
        with databases.group(group_id) as books:
            record(books, user_id=EVERYBODY, actor=actor, event_type="BAN_LIST", status="LOADED", detail=detail)


def _say(databases: Databases, day: date, refusal: BadBanListError) -> None:
    with databases.control() as session:
        kept = loaded(session, day) is not None
        then = (
            "The list of that day that was loaded before holds."
            if kept
            else "Until it is there nothing new is opened in derivatives of single shares: the exchange's file may be "
            "loaded by hand, `trading-platform kite bans --file`."
        )
        raise_alert(
            session,
            severity="info" if kept else "warning",
            source=SOURCE,
            title=TITLE,
            detail=f"{refusal}. {then}"[:1000],
        )
