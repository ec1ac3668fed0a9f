"""Watches accounts at Zerodha: asks owners to log in from 08:00 IST on, and looks for triggers that protect nothing."""

import asyncio
from datetime import UTC, datetime

import dagster as dg

from assets.platform import Platform


@dg.sensor(
    minimum_interval_seconds=300,
    default_status=dg.DefaultSensorStatus.RUNNING,
    asset_selection=dg.AssetSelection.assets("kite_preflight"),
    description="Alerts for armed accounts whose session does not last through today's trading, and for triggers (GTT) that "
    "fired without becoming an order.",
)
def kite_watch(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SkipReason:
    from trading_platform.accounts.vault import Vault
    from trading_platform.venues.port import QueryFailedError
    from trading_platform.venues.zerodha import watch

    databases, vault, now = platform.databases, Vault(platform.settings), datetime.now(UTC)
    seen = [f"asked to log in: {account}" for account in watch.ask_for_logins(databases, vault, now)]
    for account in watch.to_check(databases):
        try:
            found = asyncio.run(watch.unprotected_of(databases, vault, account, now))
        except QueryFailedError as error:
            seen.append(f"{account.account_id} could not be asked: {error}")
            continue
        if found is not None:
            watch.tell_unprotected(databases, account, found)
            seen += found
    return dg.SkipReason("; ".join(seen)[:1000] or "all accounts are logged in and protected")
