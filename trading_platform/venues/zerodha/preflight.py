"""Before the market opens: is everything there that orders will need? One report, each line with what to do.

Checked: the session, the address that orders leave from against the one that the broker has on its list, the clock, the
day's instruments, and the segments that the account may trade. Reads work from any address, so that the address is right
shows only at the first order: hence it is compared here.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import Literal

import aiohttp

from trading_platform.identifiers import Venue
from trading_platform.markets.calendars import calendar
from trading_platform.markets.contracts import BadDumpError, ContractBook
from trading_platform.markets.sessions import IST, Segment, is_trading_day
from trading_platform.venues.port import QueryFailedError
from trading_platform.venues.zerodha.books import Books
from trading_platform.venues.zerodha.login import KiteSession
from trading_platform.venues.zerodha.transport import Failure, KiteTransport

LARGEST_OFFSET_SECONDS = 1.0
FEWEST_CONTRACTS = 1
HOLIDAYS_AHEAD = timedelta(days=30)
TIMEOUT_SECONDS = 5.0
Verdict = Literal["ok", "warning", "failed"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    check: str
    verdict: Verdict
    text: str


@dataclass(frozen=True, slots=True)
class Report:
    """All findings; orders may go out where none has failed."""

    findings: tuple[Finding, ...]

    @property
    def ready(self) -> bool:
        return all(each.verdict != "failed" for each in self.findings)


@dataclass
class Preflight:
    """`allowed`: the addresses on the developer console. `egress`: tells which address we are seen with.

    `segments`: what the account is to trade (`NSE`, `NFO`, …).
    """

    transport: KiteTransport
    session: KiteSession | None
    allowed: frozenset[str]
    egress: Callable[[], Awaitable[str]]
    segments: Sequence[Segment]
    now: Callable[[], datetime]

    async def run(self) -> Report:
        """Never raises: what cannot be asked is a finding."""
        checks = (
            self._session, self._address, self._clock, self._profile, self._instruments, self._money, self._holidays,
        )  # fmt: skip
        found = []
        for check in checks:
            try:
                found.append(await check())
            except (QueryFailedError, OSError, TimeoutError, aiohttp.ClientError, ValueError) as error:
                name = check.__name__.strip("_")
                found.append(Finding(name, "failed", f"{type(error).__name__}: {error}"))
        return Report(tuple(found))

    async def _session(self) -> Finding:
        if self.session is None or not self.session.is_fresh(self.now()):
            return Finding("session", "failed", "there is no session for today: log in (`trading-platform kite login`)")
        ends = self.session.expires_at.astimezone(IST)
        return Finding("session", "ok", f"until {ends:%Y-%m-%d %H:%M} IST at the latest")

    async def _address(self) -> Finding:
        seen = await self.egress()
        if not self.allowed:
            text = f"orders leave from {seen}; which addresses the broker allows is not known here: enter them"
            return Finding("address", "warning", text)
        if seen in self.allowed:
            return Finding("address", "ok", f"orders leave from {seen}, which the broker allows")
        if ip_address(seen).is_private:
            text = f"{seen} is an address behind a router, not the one that the broker sees: ask a service (--address-service)"
            return Finding("address", "warning", text)
        text = (
            f"orders leave from {seen}, but the broker allows {', '.join(sorted(self.allowed))}: bind the account to the "
            "right address (source_address), or change the list on the developer console (once a calendar week)"
        )
        return Finding("address", "failed", text)

    async def _clock(self) -> Finding:
        asked = time.time()
        answer = await self.transport.clock()
        if isinstance(answer, Failure):
            return Finding("clock", "failed", f"the broker did not tell its time: {answer}")
        # The broker tells whole seconds: what is certain is how far we are outside of that second.
        theirs, ours = parsedate_to_datetime(answer).timestamp(), (asked + time.time()) / 2
        outside = max(theirs - ours, ours - (theirs + 1.0), 0.0)
        if outside > LARGEST_OFFSET_SECONDS:
            return Finding("clock", "failed", f"our clock is {outside:.1f} s off the broker's: set it by NTP")
        return Finding("clock", "ok", f"within {max(outside, 0.0) + 1.0:.1f} s of the broker's")

    async def _profile(self) -> Finding:
        profile = await Books(self.transport).profile()
        client, exchanges = str(profile.get("user_id")), set(profile.get("exchanges") or ())
        if self.session is not None and client != self.session.user_id:
            return Finding("profile", "failed", "the session belongs to another client than it was opened for")
        if missing := sorted(set(self.segments) - exchanges):
            text = f"the account may not trade {', '.join(missing)}: activate the segment at the broker"
            return Finding("profile", "failed", text)
        return Finding("profile", "ok", f"may trade {', '.join(self.segments)}")

    async def _instruments(self) -> Finding:
        content = await self.transport.download("/instruments")
        if isinstance(content, Failure):
            return Finding("instruments", "failed", f"the broker sent none: {content}")
        today = self.now().astimezone(IST).date()
        try:
            book = ContractBook.from_csv(content, today)
        except BadDumpError as error:
            return Finding("instruments", "failed", str(error))
        return instruments_finding(book, today, self.segments)

    async def _money(self) -> Finding:
        equity = (await Books(self.transport).funds()).get("equity")
        if equity is None or not equity.enabled:
            return Finding("money", "failed", "the equity segment is not enabled")
        verdict: Verdict = "ok" if equity.usable > 0 else "warning"
        return Finding("money", verdict, f"{equity.usable:,.2f} rupees to trade with")

    async def _holidays(self) -> Finding:
        return holidays_finding(self.now().astimezone(IST).date())


def holidays_finding(today: date) -> Finding:
    """Whether the list of holidays reaches far enough; days after it are guessed by the week."""
    until = calendar(Venue("nse")).known_until
    if until is None or until >= today + HOLIDAYS_AHEAD:
        return Finding("holidays", "ok", f"known until {until}")
    verdict: Verdict = "warning" if until >= today else "failed"
    text = f"known until {until}, then weekdays are taken for trading days: update exchange-calendars, or name the days in TP_EXCEPTIONAL_DAYS"
    return Finding("holidays", verdict, text)


def instruments_finding(book: ContractBook, today: date, segments: Sequence[Segment]) -> Finding:
    """Whether a dump is today's: contracts in every segment, and no derivative that has expired before today."""
    for segment in segments:
        listed = [each for each in book if each.exchange == segment]
        if len(listed) < FEWEST_CONTRACTS:
            return Finding("instruments", "failed", f"the dump lists nothing at {segment}")
        expiries = [each.expiry for each in listed if each.expiry is not None]
        if expiries and min(expiries) < today and is_trading_day(segment, today):
            text = f"the dump still lists {segment} contracts that expired on {min(expiries)}: it is not today's yet"
            return Finding("instruments", "failed", text)
    return Finding("instruments", "ok", f"{len(book):,} contracts")


async def seen_address(url: str, source_address: str | None) -> str:
    """The address that a service of the operator's choice sees us with; it answers with the bare address.

    Asked from the same local address that orders leave from, by IPv4 where that is one: a host with both may leave by an
    IPv6 address that changes, and be refused.
    """
    local = (source_address, 0) if source_address else None
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    connector = aiohttp.TCPConnector(local_addr=local)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session, session.get(url) as answer:
        answer.raise_for_status()
        return (await answer.text()).strip()
