"""Taking over from the old system: its users, their API keys and their trading sessions.

Running it again adds nothing twice: users meet by e-mail, keys by account, sessions by their old id. A record that
cannot be taken is reported with its line and the others go on. API keys go into the vault as they are read; the
accounts they belong to are live ones and stay unarmed until their owner arms them.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from decimal import Decimal, InvalidOperation
from pathlib import Path
from secrets import token_urlsafe

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from trading_platform.accounts.legacy_files import Record, read
from trading_platform.accounts.passwords import hash_password, is_argon2_hash
from trading_platform.accounts.roles import ROLES, Role
from trading_platform.accounts.users import (
    NewUser,
    UserError,
    checked_email,
    create_user,
    disable_user,
    record_event,
    user_id_of,
)
from trading_platform.accounts.vault import Vault
from trading_platform.identifiers import AccountId, GroupId, UserId, content_id
from trading_platform.storage.control import User
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import Account, Credential, LegacySession

ACTOR = "legacy import"
CURRENCIES = {"binance": "USDT", "zerodha": "INR"}
"""Venues that this platform trades, with the currency an account has where none is given."""
VENUE_NAMES = {"kite": "zerodha", "kiteconnect": "zerodha", "binance spot": "binance"}
CREDENTIALS = ("api_key", "api_secret", "passphrase", "access_token")
OLD_ROLES: Mapping[str, Role] = {"user": "trader", "client": "trader", "auditor": "compliance", "superuser": "admin"}
TRUE, FALSE = ("1", "true", "t", "yes", "y"), ("0", "false", "f", "no", "n")


class RecordError(ValueError):
    """A record cannot be taken; the message says what was wrong and what was expected, never a secret."""


@dataclass
class Report:
    """What an import did, or with `dry_run` would do. `counts` is {table: {added, existing, failed}}."""

    dry_run: bool
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    without_password: list[str] = field(default_factory=list)
    """Users whose old password hash cannot be verified here: they need a new password."""

    @property
    def failed(self) -> int:
        return sum(count["failed"] for count in self.counts.values())


@dataclass(frozen=True)
class _Person:
    user_id: UserId
    group_id: GroupId


def import_legacy(
    databases: Databases,
    source: Path,
    *,
    group_id: GroupId,
    timezone: tzinfo | None = None,
    dry_run: bool = False,
    on_step: Callable[[str, int, int], None] = lambda table, done, total: None,
) -> Report:
    """Import users, API keys and trading sessions from `source` (a file or a folder; see `legacy_files.read`).

    `group_id` takes the users whose record names no group. `timezone` is that of times without a zone; without it such
    a time is an error. `on_step(table, done, total)` is called after each record. Raises `LegacyFormatError` where
    nothing can be read; anything smaller is in the report.
    """
    found = read(source)
    report = Report(dry_run)
    people = _Directory(databases)

    def each(table: str, take: Callable[[Record], bool]) -> None:
        counts = report.counts[table] = Counter(added=0, existing=0, failed=0)
        for number, record in enumerate(found[table], 1):
            try:
                counts["added" if take(record) else "existing"] += 1
            except (RecordError, UserError) as error:
                counts["failed"] += 1
                report.problems.append(f"{record.where}: {error}")
            on_step(table, number, len(found[table]))

    each("users", lambda record: _take_user(databases, record, people, group_id, report))
    vault = None if dry_run or not found["api_keys"] else Vault(databases.settings)
    each("api_keys", lambda record: _take_keys(databases, record, people, vault))
    each("sessions", lambda record: _take_session(databases, record, people, timezone, dry_run=dry_run))
    return report


class _Directory:
    """Finds the platform's user behind an old id or an e-mail address."""

    def __init__(self, databases: Databases) -> None:
        with databases.control() as session:
            known = session.execute(select(User.email, User.user_id, User.group_id)).all()
        self.by_email = {email: _Person(UserId(user_id), GroupId(group)) for email, user_id, group in known}
        self._by_old_id: dict[str, _Person] = {}

    def remember(self, old_id: str | None, email: str, person: _Person) -> None:
        self.by_email[email] = person
        if old_id is not None:
            self._by_old_id[old_id] = person

    def owner(self, record: Record) -> _Person:
        named = record.text("user") or record.text("email")
        if named is None:
            raise RecordError("no user; expected user_id (as in the users table) or the user's e-mail")
        person = self._by_old_id.get(named) or self.by_email.get(named.lower())
        if person is None:
            raise RecordError(f"user {named!r} is in neither the users of this import nor the platform")
        return person


def _take_user(
    databases: Databases, record: Record, people: _Directory, default_group: GroupId, report: Report
) -> bool:
    email = checked_email(_needed(record, "email"))
    old_id = record.text("id")
    if email in people.by_email:
        people.remember(old_id, email, people.by_email[email])
        return False
    person = _Person(user_id_of(email), GroupId(record.text("group") or default_group))
    password_hash = record.text("password_hash")
    usable = password_hash is not None and is_argon2_hash(password_hash)
    role = _role(record.text("role"))
    disabled = _is_disabled(record)
    if not report.dry_run:
        new = NewUser(
            email, record.text("name") or email.partition("@")[0], role, person.group_id,
            password_hash=password_hash if usable else hash_password(token_urlsafe(32)), user_id=person.user_id,
        )  # fmt: skip
        create_user(databases, new, actor=ACTOR)
        if disabled:
            disable_user(databases, email, actor=ACTOR)
    people.remember(old_id, email, person)
    if not usable and not disabled:
        report.without_password.append(email)
    return True


def _take_keys(databases: Databases, record: Record, people: _Directory, vault: Vault | None) -> bool:
    """`vault` is None in a dry run."""
    person = people.owner(record)
    venue = _venue(record)
    secrets = {name: value for name in CREDENTIALS if (value := record.text(name)) is not None}
    if missing := {"api_key", "api_secret"} - secrets.keys():
        raise RecordError(f"{' and '.join(sorted(missing))} missing; expected both an API key and its secret")
    label = record.text("label") or "legacy"
    account_id = AccountId(content_id("acc", person.user_id, venue, label))
    if vault is None:
        return True
    with databases.group(person.group_id) as session:
        session.execute(
            insert(Account)
            .values(
                user_id=person.user_id, account_id=account_id, venue=venue, kind="live",
                currency=(record.text("currency") or CURRENCIES[venue]).upper(),
            )
            .on_conflict_do_nothing()
        )  # fmt: skip
        stored = set(
            session.scalars(
                select(Credential.name).where(Credential.user_id == person.user_id, Credential.account_id == account_id)
            )
        )
        fresh = secrets.keys() - stored
        session.add_all(vault.seal(person.user_id, account_id, name, secrets[name]) for name in fresh)
    if fresh:
        with databases.control() as session:
            record_event(
                session, person.user_id, None, "credential_imported", f"{venue} {label}: {', '.join(sorted(fresh))}"
            )
    return bool(fresh)


def _take_session(
    databases: Databases, record: Record, people: _Directory, timezone: tzinfo | None, *, dry_run: bool
) -> bool:
    person = people.owner(record)
    venue = _venue(record)
    trades, wins = _count(record, "trades"), _count(record, "wins")
    if wins > trades:
        raise RecordError(f"{wins} wins of {trades} trades")
    started, ended = _time(record, "started_at", timezone), _time(record, "ended_at", timezone, needed=False)
    if ended is not None and started is not None and ended < started:
        raise RecordError(f"ended_at {ended.isoformat()} is before started_at {started.isoformat()}")
    values = {
        "user_id": person.user_id, "session_id": _needed(record, "id"), "venue": venue, "started_at": started,
        "ended_at": ended, "trades": trades, "wins": wins, "net_pnl": _amount(record, "net_pnl"),
        "currency": (record.text("currency") or CURRENCIES[venue]).upper(),
        "details": {name: str(value) for name, value in record.extra.items() if value not in (None, "")},
    }  # fmt: skip
    if dry_run:
        return True
    with databases.group(person.group_id) as session:
        new = insert(LegacySession).values(values).on_conflict_do_nothing().returning(LegacySession.session_id)
        return session.execute(new).first() is not None


def _needed(record: Record, column: str) -> str:
    if (value := record.text(column)) is None:
        raise RecordError(f"{column} is missing")
    return value


def _role(text: str | None) -> Role:
    if text is None:
        return "trader"
    wanted: Role | str = OLD_ROLES.get(text.lower(), text.lower())
    for role in ROLES:
        if role == wanted:
            return role
    raise RecordError(f"role {text!r}; expected one of {', '.join([*ROLES, *OLD_ROLES])}")


def _is_disabled(record: Record) -> bool:
    if (active := record.text("active")) is not None:
        return not _flag("active", active)
    return _flag("disabled", record.text("disabled") or "0")


def _flag(column: str, text: str) -> bool:
    if text.lower() not in (*TRUE, *FALSE):
        raise RecordError(f"{column} is {text!r}; expected one of {', '.join((*TRUE, *FALSE))}")
    return text.lower() in TRUE


def _venue(record: Record) -> str:
    named = _needed(record, "venue").lower()
    venue = VENUE_NAMES.get(named, named)
    if venue not in CURRENCIES:
        raise RecordError(f"venue {named!r}; expected one of {', '.join(CURRENCIES)}")
    return venue


def _count(record: Record, column: str) -> int:
    text = _needed(record, column)
    if not text.isascii() or not text.isdigit():
        raise RecordError(f"{column} is {text!r}; expected a whole number, 0 or more")
    return int(text)


def _amount(record: Record, column: str) -> Decimal:
    text = _needed(record, column)
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal("nan")
    if not amount.is_finite() or abs(amount) >= Decimal(10) ** 26:
        raise RecordError(f"{column} is {text!r}; expected a decimal number with a point, such as -12.50")
    return amount


def _time(record: Record, column: str, timezone: tzinfo | None, *, needed: bool = True) -> datetime | None:
    text = _needed(record, column) if needed else record.text(column)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise RecordError(f"{column} is {text!r}; expected ISO 8601, such as 2024-03-01T09:15:00+05:30") from None
    if moment.tzinfo is None:
        if timezone is None:
            raise RecordError(f"{column} {text!r} has no time zone; say which with --timezone, such as Asia/Kolkata")
        moment = moment.replace(tzinfo=timezone)
    return moment.astimezone(UTC)
