"""Dagster's view of the engines: what they show, at most once a minute, and a check that each is alive.

Nothing here steers an engine: the most a sensor does is to tell what it saw.
"""

import json
from datetime import UTC, datetime

import dagster as dg
from sqlalchemy import func, select

from assets import partitions
from assets.platform import Platform
from trading_platform.identifiers import GroupId
from trading_platform.storage.group import EngineLease

OBSERVE_EVERY_SECONDS = 300
CHECK = dg.AssetCheckKey(dg.AssetKey("live_execution"), "engine_alive")


@dg.sensor(
    asset_selection=dg.AssetSelection.assets("live_execution"),
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Reports each engine's lease, state and reconciliation: an observation on change or every five "
    "minutes, a materialization when it runs and its reconciliation is current, the check `engine_alive` on change.",
)
def engine_observations(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SensorResult | dg.SkipReason:
    now = datetime.now(UTC)
    last: dict[str, dict[str, object]] = json.loads(context.cursor or "{}")
    group_ids = platform.databases.group_ids()
    known = set(context.instance.get_dynamic_partitions(partitions.groups.name or ""))
    new_groups = [group_id for group_id in group_ids if group_id not in known]
    events: list[dg.AssetObservation | dg.AssetMaterialization | dg.AssetCheckEvaluation] = []
    for group_id in group_ids:
        shown = _engine(platform, group_id)
        before = last.get(group_id, {})
        changed = shown["state"] != before.get("state") or shown["alive"] != before.get("alive")
        due = now.timestamp() - float(str(before.get("observed_at", 0))) >= OBSERVE_EVERY_SECONDS
        if changed or due:
            events.append(dg.AssetObservation("live_execution", partition=group_id, metadata=_metadata(shown)))
            if shown["alive"] and shown["state"] == "RUNNING":
                events.append(dg.AssetMaterialization("live_execution", partition=group_id, metadata=_metadata(shown)))
            shown["observed_at"] = now.timestamp()
        else:
            shown["observed_at"] = before.get("observed_at", 0)
        last[group_id] = shown
    down = sorted(group_id for group_id in group_ids if not last[group_id]["alive"])
    if down != last.get("*", {}).get("down"):
        events.append(
            dg.AssetCheckEvaluation(
                asset_key=CHECK.asset_key,
                check_name=CHECK.name,
                passed=not down,
                severity=dg.AssetCheckSeverity.ERROR,
                metadata={"engines_down": ", ".join(down) or "none"},
            )
        )
    last["*"] = {"down": down}
    cursor = json.dumps({name: value for name, value in last.items() if name == "*" or name in group_ids})
    if not events and not new_groups:
        context.update_cursor(cursor)
        return dg.SkipReason("no engine changed")
    return dg.SensorResult(
        asset_events=events,
        dynamic_partitions_requests=[partitions.groups.build_add_request(list(new_groups))] if new_groups else None,
        cursor=cursor,
    )


def _engine(platform: Platform, group_id: GroupId) -> dict[str, object]:
    with platform.databases.group(group_id) as session:
        row = session.execute(
            select(EngineLease, (EngineLease.expires_at > func.now()).label("alive")).where(
                EngineLease.group_id == group_id
            )
        ).one_or_none()
    if row is None:
        return {"state": "NEVER STARTED", "alive": False}
    lease = row.EngineLease
    return {
        "state": lease.state,
        "alive": bool(row.alive),
        "holder": lease.holder,
        "epoch": lease.epoch,
        "lease_expires_at": lease.expires_at.isoformat(),
        "detail": lease.detail,
    }


def _metadata(shown: dict[str, object]) -> dict[str, dg.MetadataValue]:  # type: ignore[type-arg]
    return {
        name: dg.MetadataValue.json(value) if isinstance(value, dict) else dg.MetadataValue.text(str(value))
        for name, value in shown.items()
        if name != "observed_at"
    }
