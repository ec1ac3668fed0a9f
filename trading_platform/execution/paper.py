"""Paper accounts: an account at the sandbox for a user and a dataset, with keys, balance, limits and a subscription."""

import asyncio
import secrets
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import httpx
from sqlalchemy import delete, select

from trading_platform.accounts.users import ensure_risk_limits
from trading_platform.accounts.vault import Vault
from trading_platform.identifiers import AccountId, DatasetId, GroupId, Symbol, UserId, content_id
from trading_platform.markets.instruments import is_index
from trading_platform.settings import Settings
from trading_platform.storage.control import Dataset, User
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import Account, Credential, Subscription
from trading_platform.strategies.definition import StrategyDefinition, strategy_of
from trading_platform.venues.zerodha.login import LoginRefusedError, open_session
from trading_platform.venues.zerodha.transport import KiteTransport, Success

BY = "platform"
TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class Terms:
    """What a paper account begins with, by the venue it stands for."""

    venue: str
    currency: str
    balance: Decimal


BINANCE = Terms("binance", "USDT", Decimal(100_000))
SHARES = Terms("zerodha", "INR", Decimal(100_000))
INDEX = Terms("zerodha", "INR", Decimal(6_000_000))
"""A lot of an index is worth a million rupees and more, and no position may be more than a quarter of an account."""
STARTING_BALANCE = BINANCE.balance


class SandboxUnreachableError(RuntimeError):
    """The sandbox did not take the account."""


def account_id(user_id: UserId, dataset_id: DatasetId) -> AccountId:
    """One paper account a user and dataset: books of two datasets never mix."""
    return AccountId(content_id("paper", user_id, dataset_id, length=12))


def provision(databases: Databases, settings: Settings, user_id: UserId, dataset_id: DatasetId) -> AccountId:
    """Open the paper account at the sandbox and in the books, with default limits and the market's strategy subscribed.

    Running it again changes nothing, except that a sandbox which has lost its books gets the key anew, and that an
    account at Zerodha's sandbox is logged in again where its session has ended. Raises `SandboxUnreachableError`.
    """
    account = account_id(user_id, dataset_id)
    with databases.control() as session:
        group = GroupId(session.scalars(select(User.group_id).where(User.user_id == user_id)).one())
        terms = _terms(session.get_one(Dataset, dataset_id))
        strategy = strategy_of(session, dataset_id)
    vault = Vault(settings)
    with databases.group(group) as session:
        keys = {name: secret.get_secret_value() for name, secret in vault.open_all(session, user_id, account).items()}
    known = dict(keys)
    if not keys:
        keys = {"api_key": secrets.token_hex(24), "api_secret": secrets.token_hex(32)}
    _open_at_sandbox(settings, account, keys, terms)
    if terms.venue == "zerodha":
        keys["access_token"] = asyncio.run(_logged_in(settings, keys))
    with databases.group(group) as session:
        for name, secret in keys.items():
            if known.get(name) != secret:
                ours = (Credential.user_id == user_id, Credential.account_id == account, Credential.name == name)
                session.execute(delete(Credential).where(*ours))
                session.add(vault.seal(user_id, account, name, secret))
        if session.get(Account, (user_id, account)) is None:
            session.add_all(_rows(user_id, account, dataset_id, terms, strategy))
    ensure_risk_limits(databases, group, user_id, actor=BY)
    return account


def log_in(databases: Databases, settings: Settings, group_id: GroupId, user_id: UserId, account: AccountId) -> None:
    """Give an account at Zerodha's sandbox a session that holds. Raises `SandboxUnreachableError`."""
    vault = Vault(settings)
    with databases.group(group_id) as session:
        keys = {name: secret.get_secret_value() for name, secret in vault.open_all(session, user_id, account).items()}
    token = asyncio.run(_logged_in(settings, keys))
    with databases.group(group_id) as session:
        session.merge(vault.seal(user_id, account, "access_token", token))


def _rows(
    user_id: UserId, account: AccountId, dataset_id: DatasetId, terms: Terms, strategy: StrategyDefinition
) -> tuple[Account, Subscription]:
    return (
        Account(
            user_id=user_id, account_id=account, venue=terms.venue, kind="sandbox", dataset_id=dataset_id,
            currency=terms.currency,
        ),
        Subscription(
            user_id=user_id, account_id=account, strategy_id=strategy.strategy_id,
            capital_fraction=strategy.capital_fraction, changed_by=BY,
        ),
    )  # fmt: skip


def _terms(dataset: Dataset) -> Terms:
    if dataset.venue != "nse":
        return BINANCE
    return INDEX if all(is_index(Symbol(name)) for name in dataset.symbols) else SHARES


def _open_at_sandbox(settings: Settings, account: AccountId, keys: dict[str, str], terms: Terms) -> None:
    body = {
        "account_id": account, "api_key": keys["api_key"], "api_secret": keys["api_secret"],
        "balances": {terms.currency: str(terms.balance)},
    }  # fmt: skip
    _control(settings, "accounts", body)


async def _logged_in(settings: Settings, keys: dict[str, str]) -> str:
    """An access token that holds: the one there is, or that of a new log-in. A live account's owner logs in himself."""
    transport = KiteTransport(keys["api_key"], keys.get("access_token"), root=str(settings.sandbox_kite_url))
    try:
        if "access_token" in keys and isinstance(await transport.call("GET", "/user/profile"), Success):
            return keys["access_token"]
        token = _control(settings, "kite/request_token", {"api_key": keys["api_key"]})["request_token"]
        return (await open_session(transport, str(token), keys["api_secret"])).access_token
    except LoginRefusedError as error:
        raise SandboxUnreachableError(f"the sandbox's log-in failed: {error}") from error
    finally:
        await transport.close()


def _control(settings: Settings, path: str, body: dict[str, Any]) -> dict[str, Any]:
    token = settings.sandbox_admin_token
    if settings.sandbox_url is None or token is None:
        raise SandboxUnreachableError(
            "no sandbox is known: TP_SANDBOX_URL and TP_SANDBOX_ADMIN_TOKEN are not set and no running stack left them"
        )
    try:
        answer = httpx.post(
            f"{settings.sandbox_url}/sandbox/{path}", json=body, timeout=TIMEOUT_SECONDS,
            headers={"Authorization": f"Bearer {token.get_secret_value()}"},
        )  # fmt: skip
        return dict(answer.raise_for_status().json())
    except httpx.HTTPError as error:
        raise SandboxUnreachableError(
            f"the sandbox at {settings.sandbox_url} did not take the account: {error}"
        ) from error
