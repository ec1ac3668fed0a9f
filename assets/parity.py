"""Paper trading beside the backtest of the same bars and signals: what differs, trade by trade, and why."""

from typing import TYPE_CHECKING

import dagster as dg

from assets import plots
from assets.partitions import groups
from assets.platform import OnDataset, Platform
from trading_platform.identifiers import GroupId

if TYPE_CHECKING:
    from trading_platform.backtest.parity import Difference
    from trading_platform.backtest.parity_books import Run

GROUP = "execution"
ROWS_SHOWN = 50


@dg.asset(
    group_name=GROUP,
    partitions_def=groups,
    deps=["trade_outcomes"],
    kinds={"postgres", "deltalake"},
    description="Each trade of a group beside the same trade in the backtest of the same bars and signals: prices, partial "
    "fills, missed and denied entries, exits at other times, charges; and what each cause made or cost. Money is in the "
    "account's currency; a row below zero is what paper trading made less.",
)
def parity_report(context: dg.AssetExecutionContext, config: OnDataset, platform: Platform) -> dg.MaterializeResult:  # type: ignore[type-arg]
    from trading_platform.backtest.parity import counts
    from trading_platform.backtest.parity_books import reports

    dataset_id = platform.dataset_id(config.dataset_id)
    runs = reports(platform.databases, platform.lake, GroupId(context.partition_key), dataset_id)
    pairs = [pair for run in runs for pair in run.parity.pairs]
    found = [(run, difference) for run in runs for difference in run.parity.differences]
    money: dict[str, float] = {}
    curves: dict[str, tuple[list[object], list[float]]] = {"paper": ([], []), "backtest": ([], [])}
    for pair in sorted(pairs, key=lambda pair: pair.traded.decided_at):
        for name, net in (("paper", pair.traded.net), ("backtest", pair.expected_net)):
            times, sums = curves[name]
            times.append(pair.traded.exit_decided_at or pair.traded.decided_at)
            sums.append(float(net or 0) + (sums[-1] if sums else 0.0))
    for run in runs:
        for cause, amount in run.parity.money_by_cause().items():
            money[cause] = money.get(cause, 0.0) + float(amount)
    table = [
        {
            "account": run.account_id, "symbol": difference.symbol, "decided": f"{difference.decided_at:%Y-%m-%d %H:%M}",
            "cause": difference.cause, "money": "" if difference.money is None else f"{difference.money:+.4f}",
            "why": difference.detail,
        }
        for run, difference in sorted(found, key=_gravity)[:ROWS_SHOWN]
    ]  # fmt: skip
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(pairs),
            "trades_in_both": len(pairs),
            "decided_alike": sum(run.parity.agreeing for run in runs),
            "paper_net": sum(float(pair.traded.net or 0) for pair in pairs),
            "backtest_net": sum(float(pair.expected_net) for pair in pairs),
            "differences_by_cause": dg.MetadataValue.json(counts(difference for _, difference in found)),
            "money_by_cause": plots.bars(
                money or {"nothing": 0.0}, "what each cause made (or cost, below zero)", reference=0.0
            ),
            "net_pnl": plots.lines(curves, "net P&L of the trades in both"),
            "differences": plots.table(table),
        }
    )


def _gravity(row: "tuple[Run, Difference]") -> tuple[bool, float]:
    """What has no amount (a trade that only one side has) comes first, then the largest amounts."""
    money = row[1].money
    return money is not None, -abs(float(money or 0))
