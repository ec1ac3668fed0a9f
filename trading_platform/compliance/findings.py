"""What in a day's records an officer must look at: exceptions, most serious first, each with what to do about it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any, Literal

from trading_platform.compliance.audit import Verification
from trading_platform.compliance.record_files import IST
from trading_platform.identifiers import GroupId

Severity = Literal["critical", "warning", "note"]
ORDER: tuple[Severity, ...] = ("critical", "warning", "note")
Table = list[dict[str, Any]]
REFUSALS = frozenset({"refused", "throttled"})
"""Results of a log-in that did not succeed."""


@dataclass(frozen=True)
class Finding:
    """One line of the page's list of exceptions. A `note` is no exception: it is there to be known."""

    severity: Severity
    what: str
    where: str
    """The file that holds the rows."""


def find(
    day: date,
    chains: Mapping[GroupId, Verification],
    tables: Mapping[str, Table],
    counts: Mapping[str, int],
    unlike_sealed: Sequence[str],
    unsealed: int,
    exported_at: datetime | None,
) -> list[Finding]:
    """All findings of a day, most serious first."""
    found = [
        *_trail(chains, unlike_sealed, unsealed),
        *_completeness(day, exported_at),
        *_rates(tables["ops_rate"]),
        *_ratios(tables["order_to_trade_ratio"]),
        *_tags(tables["algo_tagging"]),
        *_controls(tables["risk_control_log"]),
        *_access(tables["access_log"]),
        *_incidents(tables["incident_log"]),
        *_rejections(counts),
    ]
    return sorted(found, key=lambda finding: ORDER.index(finding.severity))


def _trail(chains: Mapping[GroupId, Verification], unlike_sealed: Sequence[str], unsealed: int) -> list[Finding]:
    found = [
        Finding("critical", f"Audit trail of group {group_id}: {problem}.", "order_audit_log.csv")
        for group_id, chain in chains.items()
        for problem in chain.problems
    ]
    if unlike_sealed:
        shown = ", ".join(unlike_sealed[:5])
        found.append(
            Finding(
                "critical",
                f"Entries in the analytics database that differ from the sealed originals: {len(unlike_sealed)} (group/seq {shown}).",
                "order_audit_log.csv",
            )
        )
    if unsealed:
        found.append(
            Finding("warning", f"Entries of the day that are not sealed yet: {unsealed}.", "order_audit_log.csv")
        )
    return found


def _completeness(day: date, exported_at: datetime | None) -> list[Finding]:
    ends = datetime.combine(day, time.min, IST) + timedelta(days=1)
    if exported_at is None:
        return [Finding("warning", "The books of a group were never exported: its records are empty.", "manifest.json")]
    if exported_at < ends:
        return [
            Finding(
                "warning", "Preliminary: the books were exported before the day had ended in India.", "manifest.json"
            )
        ]
    return []


def _rates(rows: Table) -> list[Finding]:
    found = []
    for kind in ("second", "minute", "day"):
        breached = [row for row in rows if row["window_kind"] == kind and row["breached"]]
        paper = [row for row in rows if row["window_kind"] == kind and row["over_limit"] and not row["breached"]]
        if breached:
            worst = max(row["total"] for row in breached)
            limit = breached[0]["ops_limit"]
            found.append(
                Finding(
                    "critical",
                    f"Live accounts, more than {limit} requests in a {kind}: {len(breached)} times, at most {worst}.",
                    "ops_rate.csv",
                )
            )
        if paper:
            worst = max(row["total"] for row in paper)
            found.append(
                Finding(
                    "note", f"Paper accounts, more than {paper[0]['ops_limit']} requests in a {kind}: {len(paper)} times, at most {worst}. "
                    "A replay runs faster than a market; exchange limits do not apply to it.", "ops_rate.csv",
                )
            )  # fmt: skip
    if refused := sum(row["broker_429_cnt"] for row in rows if row["window_kind"] == "day"):
        found.append(Finding("warning", f"Requests that the venue refused for their rate: {refused}.", "ops_rate.csv"))
    return found


def _ratios(rows: Table) -> list[Finding]:
    return [
        Finding(
            "warning",
            f"{row['strategy_id']} on {row['segment']}: order-to-trade ratio {row['ratio_net']:.0f} (slab {row['slab']}).",
            "order_to_trade_ratio.csv",
        )
        for row in rows
        if row["ratio_net"] is not None and row["ratio_net"] >= 50
    ]


def _tags(rows: Table) -> list[Finding]:
    found = []
    if untagged := sum(row["orders_untagged"] for row in rows):
        found.append(Finding("warning", f"Orders sent without a tag: {untagged}.", "algo_tagging.csv"))
    if wrong := sum(row["orders_wrong_id"] for row in rows):
        found.append(
            Finding("critical", f"Orders with another algo id than the registered one: {wrong}.", "algo_tagging.csv")
        )
    if unregistered := sorted(
        {row["strategy_id"] for row in rows if row["account_kind"] == "live" and row["registered"] == "N"}
    ):
        names = ", ".join(unregistered)
        found.append(
            Finding(
                "note",
                f"Not registered with an exchange (right below 10 orders a second): {names}.",
                "algo_tagging.csv",
            )
        )
    return found


def _controls(rows: Table) -> list[Finding]:
    found = []
    if halts := [row for row in rows if row["action"] == "halted"]:
        still = sum(row["reset_at_utc"] is None for row in halts)
        found.append(Finding("warning", f"Halts set: {len(halts)}; of them in force: {still}.", "risk_control_log.csv"))
        if same := [row for row in halts if row["reset_by"] and row["reset_by"] == row["actor"]]:
            found.append(
                Finding(
                    "warning", f"Halts cleared by the person who had set them: {len(same)}.", "risk_control_log.csv"
                )
            )
    blocks = Counter(row["control_id"] for row in rows if row["action"] == "blocked")
    if blocks:
        most = ", ".join(f"{rule} {number:,}" for rule, number in blocks.most_common(3))
        found.append(
            Finding(
                "note",
                f"Orders that risk control refused before they were sent: {blocks.total():,} ({most}).",
                "risk_control_log.csv",
            )
        )
    return found


def _access(rows: Table) -> list[Finding]:
    refused = sum(row["result"] in REFUSALS for row in rows)
    return [Finding("note", f"Accesses refused: {refused}.", "access_log.csv")] if refused else []


def _incidents(rows: Table) -> list[Finding]:
    found = []
    if glitches := sum(row["technical_glitch"] for row in rows):
        found.append(
            Finding("critical", f"Critical incidents of five minutes or longer: {glitches}.", "incident_log.csv")
        )
    if others := sum(row["severity"] == "critical" and not row["technical_glitch"] for row in rows):
        found.append(Finding("warning", f"Critical incidents shorter than five minutes: {others}.", "incident_log.csv"))
    return found


def _rejections(counts: Mapping[str, int]) -> list[Finding]:
    sent, rejected = counts.get("SEND", 0), counts.get("REJECT", 0)
    if not rejected:
        return []
    share = f" of {sent} ({rejected / sent:.1%})" if sent else ""
    return [Finding("warning", f"Orders that venues rejected: {rejected}{share}.", "order_audit_log.csv")]
