"""Several evaluations as one Markdown document with plots: what is predictable, at what coverage, after costs."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trading_platform.learning.evaluation_page import HEADS, answer, setting, table_row

SHOWN = ("precision", "folds", "equity", "overfitting")
INTRODUCTION = """# What can be predicted, measured

Written by `trading-platform learn report` from the reports of `trading-platform learn evaluate`; nothing in it is
written by hand, and an evaluation is shown whatever it says.

How to read it: every figure is out of sample. Hyperparameters, calibration and thresholds were chosen on earlier bars than
those the figures come from, labels that reach into a test window were purged, and the trials are counted. *Effective* is
what the rows are worth as independent ones, since labels overlap and symbols move together; intervals are 95 %.
*Precision at 80* is the share of bars given a confidence of at least 80 % whose trade ended in a net profit, beside
the base rate, which is what entering every bar would have scored. *Certified* means that the lower bounds of precision
(80 %), of the margin over the base rate and of the net return all hold; where it says no, no signal is sold as one of
80 %. Published are the bars above a threshold known at a window's beginning: the one that a tenth of the bars of the
window before exceeded. Where the market moves, more or fewer do; where the model says the same of every bar, none.
"""


def write_document(reports: Sequence[Mapping[str, Any]], plots: Sequence[Path], path: Path) -> None:
    """Write `path` with a section a report, copying the plots it shows into a folder beside it.

    `plots` (as many as reports): the folder each evaluation drew its plots to.
    """
    folder = path.parent / f"{path.stem}-plots"
    folder.mkdir(parents=True, exist_ok=True)
    parts = [INTRODUCTION, _summary(reports)]
    for report, drawn in zip(reports, plots, strict=True):
        parts.append(_section(report, drawn, folder))
    path.write_text("\n".join(parts))


def _summary(reports: Sequence[Mapping[str, Any]]) -> str:
    rows = [table_row(report["data"]["name"], report["overall"]) for report in reports]
    trials = sum(report["trials"] for report in reports)
    return f"## In short\n\n{_table(rows)}\nTrials of hyperparameters that ran for these figures: {trials}.\n"


def _section(report: Mapping[str, Any], drawn: Path, folder: Path) -> str:
    data, name = report["data"], report["data"]["name"]
    symbols = data["symbols"]
    named = ", ".join(symbols) if len(symbols) <= 6 else f"{len(symbols)} symbols"
    lines = [
        f"## {name}",
        f"{data['bars']:,} bars of {named}, {data['from'][:10]} to {data['to'][:10]}; evaluated "
        f"{report['evaluated'][0][:10]} to {report['evaluated'][1][:10]}. {setting(report)}",
        f"**{answer(report)}**",
        _money(report),
        _table([table_row("overall", report["overall"])] + [
            table_row(f"{card['from'][:10]} to {card['to'][:10]}", card) for card in report["folds"]
        ]),
        _table([
            table_row(f"{condition}: {value}", card)
            for condition, values in report["conditions"].items() for value, card in values.items()
        ]),
    ]  # fmt: skip
    for plot in SHOWN:
        copied = folder / f"{name}-{plot}.png"
        shutil.copyfile(drawn / f"{plot}.png", copied)
        lines.append(f"![{plot} on {name}]({folder.name}/{copied.name})")
    return "\n\n".join(lines) + "\n"


def _money(report: Mapping[str, Any]) -> str:
    card, ratios = report["overall"], report["sharpe"]
    gains = [1_000 * gain for gain in report["combinatorial"]["path_log_loss_gain"]]
    value, interval = card["expected_value_after_costs"], card["expected_value_interval"]
    published = card["precision_published"]
    later = ratios["evaluation_deflated"]
    deflated = "" if later is None else f" (deflated for the trials: {later:.2f} likely to be above zero)"
    money = "too few bars were published to say what they earn"
    if value is not None and published is not None:
        money = (
            f"the {card['published']:,} published bars came true {published['value']:.1%} "
            f"({published['lower']:.1%} to {published['upper']:.1%}) of the time and earned {value:+.3%} a trade after "
            f"costs ({interval[0]:+.3%} to {interval[1]:+.3%}), every bar {card['expected_value_of_every_bar']:+.3%}"
        )
    return (
        f"Money: {money}. Sharpe ratio a period of {ratios['period_days']:g} days, one trade a symbol at a time: "
        f"{ratios['search_stretch']:.3f} where the model was chosen, {ratios['evaluation_stretch']:.3f} on the later "
        f"bars{deflated}. Log-loss saved on the {len(gains)} paths of combinatorial cross-validation, thousandths of a nat: "
        f"{', '.join(f'{gain:+.1f}' for gain in gains)}."
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(HEADS) + " |", "|" + "---|" * len(HEADS)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"
