"""Sessions that end: an account whose log-in is gone is left out of trading, and keeps nobody else from it.

The broker ends every session at 06:00 IST, and whenever somebody logs in to the same app. Whichever call notices it first,
the token is taken out of the vault, its owner is asked to log in again, and the engine builds its portfolios without the
account. The next log-in puts a token back, which engines notice as they notice a new account.
"""

import asyncio

import structlog

from trading_platform.execution import paper
from trading_platform.execution.portfolio import Portfolio
from trading_platform.identifiers import GroupId
from trading_platform.observability.alerts import raise_alert
from trading_platform.storage.databases import Databases
from trading_platform.venues.port import QueryFailedError
from trading_platform.venues.zerodha import vaulted
from trading_platform.venues.zerodha.login import LOGIN_ALERT

log = structlog.get_logger(__name__)
ACTOR = "engine"


async def take_lost_session(databases: Databases, group_id: GroupId, portfolio: Portfolio, why: str) -> None:
    """Forget a live account's session and ask its owner for a new one; a paper account is logged in again at once.

    Raises `QueryFailedError` where the sandbox does not let the paper account in.
    """
    log.warning("session_lost", group=group_id, account=portfolio.account_id, why=why[:300])
    if portfolio.kind == "sandbox":
        await asyncio.to_thread(_log_paper_in, databases, group_id, portfolio)
    else:
        await asyncio.to_thread(_ask_owner, databases, group_id, portfolio, why)


def _log_paper_in(databases: Databases, group_id: GroupId, portfolio: Portfolio) -> None:
    try:
        paper.log_in(databases, databases.settings, group_id, portfolio.user_id, portfolio.account_id)
    except paper.SandboxUnreachableError as error:
        raise QueryFailedError(str(error)) from error


def _ask_owner(databases: Databases, group_id: GroupId, portfolio: Portfolio, why: str) -> None:
    account = vaulted.account_in(databases, group_id, portfolio.account_id)
    if account is not None:
        vaulted.forget(databases, account, actor=ACTOR, why=why[:300])
    with databases.control() as session:
        raise_alert(
            session, severity="critical", **LOGIN_ALERT, labels={"account": portfolio.account_id},
            detail="the broker no longer accepts the session, nothing is traded for the account: log in on the "
            f"dashboard's Zerodha page or with `trading-platform kite login --account {portfolio.account_id}`",
        )  # fmt: skip
