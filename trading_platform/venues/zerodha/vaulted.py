"""A broker account's keys and today's session, in the vault and nowhere else.

    account = account_of(databases, "acc_1")                 # where it lives, and what it was armed for
    keys = keys_of(databases, vault, account)                # api_key, api_secret, session or None
    keep(databases, vault, account, session, actor="ann")

A session is kept beside the keys and replaced by the next one; one that is past its end counts as none. Every change is
audited in the transaction that makes it, with the broker's client id masked.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

import orjson
from pydantic import SecretStr
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from trading_platform.accounts.vault import Vault
from trading_platform.compliance.audit import record
from trading_platform.identifiers import AccountId, GroupId, UserId
from trading_platform.observability.alerts import resolve_alert
from trading_platform.settings import Settings
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import Account, Credential
from trading_platform.venues.zerodha.login import LOGIN_ALERT, LOGIN_URL, KiteSession
from trading_platform.venues.zerodha.transport import ROOT, KiteTransport

TOKEN, ABOUT = "access_token", "kite_session"
ADDRESS = "source_address"
"""Optional: the local address that this account's orders leave from, where the machine has several."""


class NoAccountError(LookupError):
    """There is no such account at Zerodha, or it has no keys."""


@dataclass(frozen=True, slots=True)
class KiteAccount:
    """A Zerodha account in the books: whose it is, and whether it is real."""

    group_id: GroupId
    user_id: UserId
    account_id: AccountId
    live: bool
    armed: bool


@dataclass(frozen=True, slots=True)
class KiteKeys:
    """What an account is reached with. `session` is None before a log-in and after 06:00 IST of the next day."""

    api_key: str
    api_secret: SecretStr
    access_token: SecretStr | None
    session: KiteSession | None
    source_address: str | None


def account_of(databases: Databases, account_id: str) -> KiteAccount:
    """The account of that id, whichever group it belongs to. Raises `NoAccountError`."""
    for group_id in databases.group_ids():
        if (found := account_in(databases, group_id, account_id)) is not None:
            return found
    raise NoAccountError(
        f"no open account {account_id!r} at zerodha; `trading-platform kite status` lists those that there are"
    )


def account_in(databases: Databases, group_id: GroupId, account_id: str) -> KiteAccount | None:
    """The account within one group."""
    with databases.group(group_id) as session:
        row = session.scalar(select(Account).where(Account.account_id == account_id, *_AT_ZERODHA))
        return None if row is None else _value(group_id, row)


def accounts_in(databases: Databases, group_id: GroupId) -> list[KiteAccount]:
    """Every open account at Zerodha of a group, by id."""
    with databases.group(group_id) as session:
        rows = session.scalars(select(Account).where(*_AT_ZERODHA).order_by(Account.account_id))
        return [_value(group_id, row) for row in rows]


def all_accounts(databases: Databases) -> list[KiteAccount]:
    """Every open account at Zerodha, by group and id."""
    return [each for group_id in sorted(databases.group_ids()) for each in accounts_in(databases, group_id)]


def keys_of(databases: Databases, vault: Vault, account: KiteAccount, now: datetime | None = None) -> KiteKeys:
    """Raises `NoAccountError` where the keys were never entered, `VaultError` where they do not open."""
    with databases.group(account.group_id) as session:
        secrets = vault.open_all(session, account.user_id, account.account_id)
    if not {"api_key", "api_secret"} <= secrets.keys():
        raise NoAccountError(f"account {account.account_id} has no API key and secret; enter them before logging in")
    kept = _session(secrets)
    fresh = kept is not None and kept.is_fresh(now or datetime.now(UTC))
    address = secrets.get(ADDRESS)
    return KiteKeys(
        secrets["api_key"].get_secret_value(), secrets["api_secret"],
        secrets.get(TOKEN) if fresh or kept is None else None, kept if fresh else None,
        address.get_secret_value() if address else None,
    )  # fmt: skip


def keep(databases: Databases, vault: Vault, account: KiteAccount, session: KiteSession, *, actor: str) -> None:
    """Take a new session in the place of the one before."""
    about = {
        "user_id": session.user_id, "user_name": session.user_name, "logged_in_at": session.logged_in_at,
        "expires_at": session.expires_at, "exchanges": session.exchanges, "products": session.products,
    }  # fmt: skip
    with databases.group(account.group_id) as books:
        for name, secret in ((TOKEN, session.access_token), (ABOUT, orjson.dumps(about).decode())):
            books.merge(vault.seal(account.user_id, account.account_id, name, secret, session.expires_at))
        _audit(books, account, actor, "SESSION_CREATED", session.user_id, expires_at=session.expires_at.isoformat())
    with databases.control() as control:
        resolve_alert(control, **LOGIN_ALERT, labels={"account": account.account_id})


def forget(databases: Databases, account: KiteAccount, *, actor: str, why: str) -> None:
    """Take the session away: logged out, or no longer accepted. The keys stay."""
    with databases.group(account.group_id) as books:
        books.execute(
            delete(Credential).where(
                Credential.user_id == account.user_id, Credential.account_id == account.account_id,
                Credential.name.in_((TOKEN, ABOUT)),
            )
        )  # fmt: skip
        _audit(books, account, actor, "SESSION_ENDED", "", why=why)


def transport_of(settings: Settings, account: KiteAccount, keys: KiteKeys) -> KiteTransport:
    """A transport for the account: to the broker for a live one, to the sandbox for a paper one."""
    token = keys.access_token.get_secret_value() if keys.access_token else None
    return KiteTransport(keys.api_key, token, root=root_of(settings, account), source_address=keys.source_address)


def root_of(settings: Settings, account: KiteAccount) -> str:
    """Raises `NoAccountError` for a paper account without a sandbox."""
    if account.live:
        return ROOT
    if settings.sandbox_kite_url is None:
        raise NoAccountError(f"paper account {account.account_id} needs the sandbox: set TP_SANDBOX_KITE_URL")
    return settings.sandbox_kite_url


def login_page_of(settings: Settings, account: KiteAccount) -> str:
    """Where its owner logs in."""
    return LOGIN_URL if account.live else f"{root_of(settings, account).rstrip('/')}/connect/login"


def masked(client_id: str) -> str:
    """A client id as records show it.

    >>> masked("AB1234"), masked("A1")
    ('AB**34', '**')
    """
    return client_id[:2] + "*" * (len(client_id) - 4) + client_id[-2:] if len(client_id) > 4 else "*" * len(client_id)


_AT_ZERODHA = (Account.venue == "zerodha", Account.closed_at.is_(None))


def _value(group_id: GroupId, row: Account) -> KiteAccount:
    return KiteAccount(
        group_id, UserId(row.user_id), AccountId(row.account_id), row.kind == "live", row.armed_at is not None
    )


def _session(secrets: dict[str, SecretStr]) -> KiteSession | None:
    if TOKEN not in secrets or ABOUT not in secrets:
        return None
    about = orjson.loads(secrets[ABOUT].get_secret_value())
    return KiteSession(
        about["user_id"], about["user_name"], secrets[TOKEN].get_secret_value(),
        datetime.fromisoformat(about["logged_in_at"]), datetime.fromisoformat(about["expires_at"]),
        tuple(about["exchanges"]), tuple(about["products"]),
    )  # fmt: skip


def _audit(books: Session, account: KiteAccount, actor: str, event: str, client_id: str, **detail: str) -> None:
    record(
        books, user_id=account.user_id, account_id=account.account_id, actor=actor, event_type=event,
        detail={"venue": "zerodha", "client_id": masked(client_id), **detail},
    )  # fmt: skip
