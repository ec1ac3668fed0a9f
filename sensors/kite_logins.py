"""Asks owners of accounts at Zerodha to log in, from 08:00 IST of a trading day until they have."""

from datetime import UTC, datetime

import dagster as dg

from assets.platform import Platform


@dg.sensor(
    minimum_interval_seconds=300,
    default_status=dg.DefaultSensorStatus.RUNNING,
    asset_selection=dg.AssetSelection.assets("kite_preflight"),
    description="An alert for every armed account whose session does not last through today's trading.",
)
def kite_logins(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SkipReason:
    from trading_platform.accounts.vault import Vault
    from trading_platform.venues.zerodha.morning import ask_for_logins

    asked = ask_for_logins(platform.databases, Vault(platform.settings), datetime.now(UTC))
    return dg.SkipReason(f"asked to log in: {', '.join(asked)}" if asked else "nobody needs to log in")
