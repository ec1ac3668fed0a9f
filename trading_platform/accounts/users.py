"""Users and their groups: who exists, in which group, with which role.

A user lives in exactly one group; the group's schema holds all that belongs to the user. Creating the first user of a
group creates the group: its row in the shard map and its migrated schema. Every change is written to `login_events`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from secrets import token_urlsafe

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from trading_platform.accounts.passwords import check_policy, hash_password
from trading_platform.accounts.roles import ROLES, Role, known_role
from trading_platform.identifiers import GroupId, UserId, content_id
from trading_platform.settings import Settings
from trading_platform.storage.control import Group, LoginEvent, Shard, User
from trading_platform.storage.databases import FIRST_SHARD, Databases
from trading_platform.storage.group import RiskLimits
from trading_platform.storage.migrate import migrate_group

FIRST_USERS_FILE = "first-users.txt"
_GROUP_ID = re.compile(r"[a-z][a-z0-9_]{0,39}")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")

DEFAULT_RISK_LIMITS: dict[str, dict[str, Decimal | int]] = {
    "USDT": {
        "max_order_notional": Decimal(25_000), "max_position_notional": Decimal(50_000), "max_open_positions": 10,
        "max_orders_per_second": 10, "max_orders_per_day": 10_000, "max_daily_loss": Decimal(10_000),
    },
    "INR": {
        "max_order_notional": Decimal(1_500_000), "max_position_notional": Decimal(3_000_000), "max_open_positions": 10,
        "max_orders_per_second": 8, "max_orders_per_day": 4_500, "max_daily_loss": Decimal(150_000),
    },
}  # fmt: skip
"""Revision 1 of a new trader's limits, by the currency of an account. Traders lower them; an admin raises them. In rupees
an order may be a lot of an index, and rates are what Zerodha leaves for entries."""


class UserError(ValueError):
    """What was asked of the user directory cannot be done; the message says why."""


@dataclass(frozen=True)
class NewUser:
    """A user to be created. `password_hash` is for imports that bring an Argon2 hash instead of a password."""

    email: str
    display_name: str
    role: Role
    group_id: GroupId
    password: str | None = None
    password_hash: str | None = None
    user_id: UserId | None = None


@dataclass(frozen=True)
class FirstUser:
    """A user made on the first start, with the password to be printed once."""

    email: str
    password: str
    role: Role
    group_id: GroupId


def create_user(databases: Databases, new: NewUser, *, actor: str) -> UserId:
    """Create a user, and the group where it is the group's first. Raises `UserError`, `WeakPasswordError`."""
    email = checked_email(new.email)
    if new.role not in ROLES:
        raise UserError(f"role {new.role!r} is not known; expected one of {', '.join(ROLES)}")
    if (new.password is None) == (new.password_hash is None):
        raise UserError(f"{email}: give either a password or a password hash")
    if new.password is not None:
        check_policy(new.password, email)
    with databases.control() as session:
        if session.scalar(select(User.user_id).where(User.email == email)):
            raise UserError(f"{email} already exists; change it with `trading-platform users passwd|group|disable`")
    user_id = new.user_id or user_id_of(email)
    ensure_group(databases, new.group_id)
    if new.role == "trader":
        ensure_risk_limits(databases, new.group_id, user_id, actor=actor)
    with databases.control() as session:
        session.add(
            User(
                user_id=user_id,
                email=email,
                display_name=new.display_name,
                password_hash=new.password_hash or hash_password(new.password or ""),
                role=new.role,
                group_id=new.group_id,
            )
        )
        record_event(session, user_id, email, "user_created", f"role {new.role}, group {new.group_id}, by {actor}")
    return user_id


def user_id_of(email: str) -> UserId:
    """The id that a new user with this address gets: the same on every import of the same person."""
    return UserId(content_id("u", email.lower(), length=12))


def checked_email(email: str) -> str:
    """The address in lower case. Raises `UserError`."""
    email = email.strip().lower()
    if not _EMAIL.fullmatch(email) or len(email) > 254:
        raise UserError(f"{email!r} is not an e-mail address; expected something like name@example.com")
    return email


def ensure_group(databases: Databases, group_id: GroupId) -> None:
    """Make sure that the group is in the shard map and its schema exists at the newest revision."""
    if not _GROUP_ID.fullmatch(group_id):
        raise UserError(f"group {group_id!r}: expected a lower-case letter, then up to 39 letters, digits or _")
    with databases.control() as session:
        known = session.get(Group, group_id) is not None
        if not known:
            session.execute(insert(Shard).values(shard_id=FIRST_SHARD, url_key=FIRST_SHARD).on_conflict_do_nothing())
            session.execute(
                insert(Group)
                .values(group_id=group_id, shard_id=FIRST_SHARD, schema_name=f"group_{group_id}")
                .on_conflict_do_nothing()
            )
    migrate_group(databases, group_id)


def ensure_risk_limits(databases: Databases, group_id: GroupId, user_id: UserId, *, actor: str) -> None:
    """Give a trader the default limits as revision 1 where there are none."""
    rows = [
        {"scope": "user", "scope_id": user_id, "currency": currency, "revision": 1, "changed_by": actor} | limits
        for currency, limits in DEFAULT_RISK_LIMITS.items()
    ]
    with databases.group(group_id) as session:
        session.execute(insert(RiskLimits).values(rows).on_conflict_do_nothing())


def set_password(databases: Databases, email: str, password: str, *, actor: str) -> UserId:
    """Set a user's password. The caller ends the user's sessions."""
    check_policy(password, checked_email(email))
    with databases.control() as session:
        user = find_user(session, email)
        user.password_hash = hash_password(password)
        record_event(session, UserId(user.user_id), user.email, "password_changed", f"by {actor}")
        return UserId(user.user_id)


def disable_user(databases: Databases, email: str, *, actor: str) -> UserId:
    """Take a user's log-in away; the rows stay. The caller ends the user's sessions."""
    with databases.control() as session:
        user = find_user(session, email)
        user.disabled_at = user.disabled_at or datetime.now(UTC)
        record_event(session, UserId(user.user_id), user.email, "user_disabled", f"by {actor}")
        return UserId(user.user_id)


def set_role(databases: Databases, email: str, role: Role, *, actor: str) -> UserId:
    """Change a user's role. The caller ends the user's sessions, which hold the old one."""
    if role not in ROLES:
        raise UserError(f"role {role!r} is not known; expected one of {', '.join(ROLES)}")
    with databases.control() as session:
        user = find_user(session, email)
        record_event(session, UserId(user.user_id), user.email, "role_changed", f"{user.role} to {role}, by {actor}")
        user.role = role
        user_id, group_id = UserId(user.user_id), GroupId(user.group_id)
    if role == "trader":
        ensure_risk_limits(databases, group_id, user_id, actor=actor)
    return user_id


def find_user(session: Session, email: str) -> User:
    """The user with this address. Raises `UserError`."""
    user = session.scalar(select(User).where(User.email == email.strip().lower()))
    if user is None:
        raise UserError(f"no user {email!r}; `trading-platform users list` shows all")
    return user


def record_event(session: Session, user_id: UserId | None, email: str | None, action: str, result: str) -> None:
    """Add a row to the access audit, in the caller's transaction."""
    session.add(LoginEvent(user_id=user_id, email=email, action=action, result=result))


def first_users(databases: Databases) -> Sequence[FirstUser]:
    """On the first start: two traders in two groups, a compliance officer, an engineer and an admin.

    Random passwords are written to `<home>/secrets/first-users.txt` (mode 0600) and returned, to be printed once.
    Interrupted half-way, the next call goes on with the same passwords. Empty where other users exist already.
    """
    path = databases.settings.secrets_dir / FIRST_USERS_FILE
    with databases.control() as session:
        existing = set(session.scalars(select(User.email)))
    planned = _planned_first_users(databases.settings)
    if existing - {user.email for user in planned} or {user.email for user in planned} <= existing:
        return []
    for user in planned:
        if user.email not in existing:
            name = user.email.partition("@")[0]
            create_user(
                databases,
                NewUser(user.email, name.capitalize(), user.role, user.group_id, user.password, user_id=UserId(name)),
                actor=f"first start, passwords in {path.name}",
            )
    return planned


def _planned_first_users(settings: Settings) -> list[FirstUser]:
    path = settings.secrets_dir / FIRST_USERS_FILE
    if not path.exists():
        people: list[tuple[str, Role, str]] = [
            ("alice", "trader", "g1"),
            ("bob", "trader", "g2"),
            ("carol", "compliance", "g1"),
            ("dave", "engineer", "g1"),
            ("admin", "admin", "g1"),
        ]
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lines = [f"{name}@example.com {token_urlsafe(15)} {role} {group}" for name, role, group in people]
        draft = path.with_suffix(".new")
        draft.touch(mode=0o600)
        draft.write_text(
            "\n".join(["# e-mail, password, role, group. Change the passwords, then delete this file.", *lines, ""])
        )
        draft.replace(path)
    return [_parsed(line, path) for line in path.read_text().splitlines() if line and not line.startswith("#")]


def _parsed(line: str, path: Path) -> FirstUser:
    try:
        email, password, role, group = line.split()
    except ValueError:
        raise UserError(
            f"{path}: a line is not `e-mail password role group`; delete the file and start again"
        ) from None
    return FirstUser(email, password, known_role(role), GroupId(group))
