"""What every live account is watched for: a log-in in time, a morning's preflight, triggers that fired into nothing.

for account in to_check(databases):
    report = await check_account(databases, vault, account, now)
    tell(databases, account, report)
ask_for_logins(databases, vault, now)
"""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import datetime
from urllib.parse import urlsplit

from trading_platform.accounts.vault import Vault
from trading_platform.markets.sessions import IST, Segment
from trading_platform.observability.alerts import raise_alert, resolve_alert
from trading_platform.storage.databases import Databases
from trading_platform.venues.route import local_address
from trading_platform.venues.zerodha import vaulted
from trading_platform.venues.zerodha.gtt import Triggers, unprotected
from trading_platform.venues.zerodha.login import LOGIN_ALERT, login_wanted
from trading_platform.venues.zerodha.preflight import Preflight, Report, seen_address
from trading_platform.venues.zerodha.vaulted import KiteAccount, KiteKeys, NoAccountError

UNPROTECTED = "A position at Zerodha is not protected"
NOT_READY = "Orders at Zerodha would not get through"
SEGMENTS: tuple[Segment, ...] = ("NSE", "NFO")


def to_check(databases: Databases) -> Iterator[KiteAccount]:
    """Live accounts that their owners have armed."""
    return (account for account in vaulted.all_accounts(databases) if account.live and account.armed)


async def check_account(
    databases: Databases, vault: Vault, account: KiteAccount, now: datetime, *, allowed: frozenset[str] = frozenset(),
    segments: Sequence[Segment] = SEGMENTS, address_service: str = "",
) -> Report:  # fmt: skip
    """The preflight of one account. Raises `NoAccountError` for one without keys.

    `allowed`: addresses on the broker's list beside the one that the account is bound to. `address_service`: URL of a
    service that answers with the address it sees; without one the local address is taken.
    """
    keys = await asyncio.to_thread(vaulted.keys_of, databases, vault, account, now)
    transport = vaulted.transport_of(databases.settings, account, keys)
    target = urlsplit(transport.root)

    async def egress() -> str:
        if address_service:
            return await seen_address(address_service, keys.source_address)
        own = await asyncio.to_thread(local_address, target.hostname or "", target.port or 443)
        return keys.source_address or own or "nowhere: there is no route to the broker"

    try:
        bound = {keys.source_address} if keys.source_address else set()
        return await Preflight(transport, keys.session, allowed | bound, egress, segments, lambda: now).run()
    finally:
        await transport.close()


def tell(databases: Databases, account: KiteAccount, report: Report) -> None:
    """Raise or resolve the alert of an account."""
    labels = {"account": account.account_id}
    with databases.control() as session:
        if report.ready:
            resolve_alert(session, source="zerodha", title=NOT_READY, labels=labels)
            return
        failed = "; ".join(f"{each.check}: {each.text}" for each in report.findings if each.verdict == "failed")
        raise_alert(
            session, severity="critical", source="zerodha", title=NOT_READY, detail=failed[:1000], labels=labels
        )


def ask_for_logins(databases: Databases, vault: Vault, now: datetime) -> list[str]:
    """Ask every owner whose session does not last through today's trading; returns the accounts."""
    asked = []
    for account in to_check(databases):
        by = _wanted(databases, vault, account, now)
        if by is None:
            continue
        detail = f"trading begins at {by.astimezone(IST):%H:%M} IST: log in on the dashboard's page Accounts"
        with databases.control() as session:
            raise_alert(
                session, severity="critical" if now >= by else "warning", **LOGIN_ALERT, detail=detail,
                labels={"account": account.account_id},
            )  # fmt: skip
        asked.append(str(account.account_id))
    return asked


def _wanted(databases: Databases, vault: Vault, account: KiteAccount, now: datetime) -> datetime | None:
    try:
        keys: KiteKeys = vaulted.keys_of(databases, vault, account, now)
    except NoAccountError:
        return None
    return login_wanted(keys.session, now)


async def unprotected_of(databases: Databases, vault: Vault, account: KiteAccount, now: datetime) -> list[str] | None:
    """What an account's triggers no longer protect, a line each; None where there is no session to ask with.

    Raises `QueryFailedError` where the broker does not answer.
    """
    keys = await asyncio.to_thread(vaulted.keys_of, databases, vault, account, now)
    if keys.session is None:
        return None
    transport = vaulted.transport_of(databases.settings, account, keys)
    try:
        found = unprotected(await Triggers(transport).all())
    finally:
        await transport.close()
    return [f"{each.trigger.tradingsymbol} (trigger {each.trigger_id}): {why}" for each, why in found]


def tell_unprotected(databases: Databases, account: KiteAccount, found: list[str]) -> None:
    """An alarm while there is a trigger that fired into nothing, and its end."""
    labels = {"account": account.account_id}
    with databases.control() as session:
        if found:
            detail = "; ".join(found)[:1000]
            raise_alert(session, severity="critical", source="zerodha", title=UNPROTECTED, detail=detail, labels=labels)
        else:
            resolve_alert(session, source="zerodha", title=UNPROTECTED, labels=labels)
