"""Paper accounts: an account at the sandbox for a user and a dataset, with keys, balance, limits and a subscription."""

import secrets
from decimal import Decimal

import httpx
from sqlalchemy import select

from trading_platform.accounts.vault import Vault
from trading_platform.identifiers import AccountId, DatasetId, GroupId, UserId, content_id
from trading_platform.settings import Settings
from trading_platform.storage.control import User
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import Account, RiskLimits, Subscription

STARTING_BALANCE = Decimal(100_000)
CURRENCY = "USDT"
STRATEGY = "barrier_long"
CAPITAL_FRACTION = Decimal("0.1")
BY = "platform"
TIMEOUT_SECONDS = 10.0


class SandboxUnreachableError(RuntimeError):
    """The sandbox did not take the account."""


def account_id(user_id: UserId, dataset_id: DatasetId) -> AccountId:
    """One paper account a user and dataset: books of two datasets never mix."""
    return AccountId(content_id("paper", user_id, dataset_id, length=12))


def provision(databases: Databases, settings: Settings, user_id: UserId, dataset_id: DatasetId) -> AccountId:
    """Open the paper account at the sandbox and in the books, with default limits and the default strategy subscribed.

    Running it again changes nothing, except that a sandbox which has lost its books gets the key anew. Raises
    `SandboxUnreachableError`.
    """
    account = account_id(user_id, dataset_id)
    with databases.control() as session:
        group = GroupId(session.scalars(select(User.group_id).where(User.user_id == user_id)).one())
    vault = Vault(settings)
    with databases.group(group) as session:
        keys = {name: secret.get_secret_value() for name, secret in vault.open_all(session, user_id, account).items()}
    if not keys:
        keys = {"api_key": secrets.token_hex(24), "api_secret": secrets.token_hex(32)}
    _open_at_sandbox(settings, account, keys)
    with databases.group(group) as session:
        if session.get(Account, (user_id, account)) is not None:
            return account
        session.add(
            Account(
                user_id=user_id, account_id=account, venue="binance", kind="sandbox", dataset_id=dataset_id,
                currency=CURRENCY,
            )
        )  # fmt: skip
        session.add_all(vault.seal(user_id, account, name, secret) for name, secret in keys.items())
        session.add(
            Subscription(
                user_id=user_id, account_id=account, strategy_id=STRATEGY, capital_fraction=CAPITAL_FRACTION,
                changed_by=BY,
            )
        )  # fmt: skip
        if session.scalars(select(RiskLimits.revision).where(RiskLimits.user_id == user_id)).first() is None:
            session.add(_default_limits(user_id))
    return account


def _default_limits(user_id: UserId) -> RiskLimits:
    return RiskLimits(
        user_id=user_id,
        revision=1,
        max_order_notional=STARTING_BALANCE / 4,
        max_position_notional=STARTING_BALANCE / 4,
        max_open_positions=8,
        max_orders_per_second=10,
        max_orders_per_day=500,
        max_daily_loss=STARTING_BALANCE / 20,
        changed_by=BY,
    )


def _open_at_sandbox(settings: Settings, account: AccountId, keys: dict[str, str]) -> None:
    token = settings.sandbox_admin_token
    if settings.sandbox_url is None or token is None:
        raise SandboxUnreachableError(
            "no sandbox is known: TP_SANDBOX_URL and TP_SANDBOX_ADMIN_TOKEN are not set and no running stack left them"
        )
    body = {"account_id": account, **keys, "balances": {CURRENCY: str(STARTING_BALANCE)}}
    try:
        httpx.post(
            f"{settings.sandbox_url}/sandbox/accounts", json=body, timeout=TIMEOUT_SECONDS,
            headers={"Authorization": f"Bearer {token.get_secret_value()}"},
        ).raise_for_status()  # fmt: skip
    except httpx.HTTPError as error:
        raise SandboxUnreachableError(
            f"the sandbox at {settings.sandbox_url} did not take the account: {error}"
        ) from error
