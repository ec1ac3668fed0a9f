"""Accounts of real money: connected with their keys, armed and disarmed by their owner, closed.

    account_id = await connect(session, vault, owner, "zerodha", Keys(key, secret), actor="ann")
    await arm(session, owner, account_id, typed=f"arm {account_id}", actor="ann")

Connecting sends nothing anywhere, and an account that is not armed is never traded. Arming takes typed words; disarming
does not, so that it is quick. Every change is audited in the caller's transaction, without any secret.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import SecretStr
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from trading_platform.accounts.vault import Vault
from trading_platform.compliance.audit import record
from trading_platform.identifiers import AccountId, UserId, content_id
from trading_platform.storage.group import Account

CURRENCIES = {"binance": "USDT", "zerodha": "INR"}
"""What accounts of each venue are kept in; the venues that can be connected."""


class NotYoursError(LookupError):
    """There is no such open live account of this owner."""


class AlreadyConnectedError(ValueError):
    """The same API key is connected already."""


class WrongWordsError(ValueError):
    """The typed confirmation is not the one that was asked for; `expected` is."""

    def __init__(self, expected: str) -> None:
        super().__init__(f"type exactly: {expected}")
        self.expected = expected


@dataclass(frozen=True, slots=True)
class Keys:
    """What a venue knows the account by. `source_address`: the local address that its requests leave from."""

    api_key: SecretStr
    api_secret: SecretStr
    source_address: str | None = None


def words_to_arm(account_id: str) -> str:
    """What an owner types to let real money be traded."""
    return f"arm {account_id}"


async def connect(
    session: AsyncSession, vault: Vault, user_id: UserId, venue: str, keys: Keys, *, actor: str
) -> AccountId:
    """A new live account, not armed. Raises `AlreadyConnectedError`, and KeyError for an unknown venue."""
    account_id = AccountId(content_id("live", user_id, venue, keys.api_key.get_secret_value(), length=12))
    known = await session.get(Account, (user_id, account_id))
    if known is not None and known.closed_at is None:
        raise AlreadyConnectedError(f"this API key is connected already, as account {account_id}")
    if known is None:
        session.add(
            Account(user_id=user_id, account_id=account_id, venue=venue, kind="live", currency=CURRENCIES[venue])
        )
    else:
        known.closed_at = None
    await session.flush()
    await _seal(session, vault, user_id, account_id, keys)
    _audit(session, user_id, account_id, actor, "ACCOUNT_CONNECTED", venue=venue)
    return account_id


async def arm(session: AsyncSession, user_id: UserId, account_id: str, *, typed: str, actor: str) -> Account:
    """Let real money be traded. Raises `NotYoursError`, `WrongWordsError`."""
    account = await _mine(session, user_id, account_id)
    if typed != words_to_arm(account_id):
        raise WrongWordsError(words_to_arm(account_id))
    account.armed_at, account.armed_by = datetime.now(UTC), actor
    _audit(session, user_id, account_id, actor, "ACCOUNT_ARMED")
    return account


async def disarm(session: AsyncSession, user_id: UserId, account_id: str, *, actor: str) -> Account:
    """Stop trading real money; what is held is left as it is. Raises `NotYoursError`."""
    account = await _mine(session, user_id, account_id)
    account.armed_at = account.armed_by = None
    _audit(session, user_id, account_id, actor, "ACCOUNT_DISARMED")
    return account


async def close(session: AsyncSession, user_id: UserId, account_id: str, *, actor: str) -> None:
    """Disconnect an account: it is disarmed and no longer shown; its records stay. Raises `NotYoursError`."""
    account = await disarm(session, user_id, account_id, actor=actor)
    account.closed_at = datetime.now(UTC)
    _audit(session, user_id, account_id, actor, "ACCOUNT_CLOSED")


async def _mine(session: AsyncSession, user_id: UserId, account_id: str) -> Account:
    found = await session.scalar(
        select(Account)
        .where(
            Account.user_id == user_id, Account.account_id == account_id, Account.kind == "live",
            Account.closed_at.is_(None),
        )
        .with_for_update()
    )  # fmt: skip
    if found is None:
        raise NotYoursError(f"you have no live account {account_id!r}")
    return found


async def _seal(session: AsyncSession, vault: Vault, user_id: UserId, account_id: AccountId, keys: Keys) -> None:
    given = {"api_key": keys.api_key, "api_secret": keys.api_secret}
    if keys.source_address:
        given["source_address"] = SecretStr(keys.source_address)
    for name, secret in given.items():
        await session.merge(vault.seal(user_id, account_id, name, secret))


def _audit(session: AsyncSession, user_id: UserId, account_id: str, actor: str, event: str, **detail: str) -> None:
    record(session, user_id=user_id, account_id=account_id, actor=actor, event_type=event, detail=detail)
