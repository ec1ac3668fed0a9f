"""Plots inside Dagster metadata: small PNGs embedded in Markdown, so that they need no file server."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, ACCENT, WARN, SOFT = "#1f2937", "#2563eb", "#dc2626", "#94a3b8"


def figure(width: float = 7.2, height: float = 3.0) -> "Figure":
    """An empty figure in the platform's style; made without pyplot, whose global state leaks between threads."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), dpi=110, layout="constrained")
    axes = made.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=INK)
    axes.grid(alpha=0.25, linewidth=0.6)
    return made


def image(made: "Figure", alt: str) -> dg.MarkdownMetadataValue:
    buffer = io.BytesIO()
    made.savefig(buffer, format="png")
    return dg.MetadataValue.md(f"![{alt}](data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()})")


def lines(series: Mapping[str, tuple[Sequence[object], Sequence[float]]], title: str) -> dg.MarkdownMetadataValue:
    """One line a name; x values are times or numbers."""
    made = figure()
    axes = made.axes[0]
    for name, (x, y) in series.items():
        axes.plot(x, y, linewidth=1.1, label=name)  # type: ignore[arg-type]
    if len(series) > 1:
        axes.legend(fontsize=8, frameon=False)
    axes.set_title(title, fontsize=9, loc="left", color=INK)
    return image(made, title)


def bars(values: Mapping[str, float], title: str, *, reference: float | None = None) -> dg.MarkdownMetadataValue:
    """Horizontal bars, largest on top; `reference` draws the line to compare with."""
    made = figure(height=0.6 + 0.3 * max(len(values), 2))
    axes = made.axes[0]
    names = sorted(values, key=lambda name: values[name])
    axes.barh(names, [values[name] for name in names], color=ACCENT, height=0.6)
    if reference is not None:
        axes.axvline(reference, color=WARN, linewidth=1, linestyle="--")
    axes.set_title(title, fontsize=9, loc="left", color=INK)
    return image(made, title)


def reliability(
    predicted: Sequence[float], observed: Sequence[float], counts: Sequence[int]
) -> dg.MarkdownMetadataValue:
    """Reliability diagram: observed frequency over predicted probability; the dot's area is the number of bars."""
    made = figure(width=4.2, height=3.6)
    axes = made.axes[0]
    axes.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle="--")
    largest = max(counts, default=1) or 1
    axes.scatter(predicted, observed, s=[12 + 160 * n / largest for n in counts], color=ACCENT, alpha=0.75)
    axes.set_xlabel("calibrated confidence", fontsize=8)
    axes.set_ylabel("share that came true", fontsize=8)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    return image(made, "reliability diagram")


def table(rows: Sequence[Mapping[str, object]]) -> dg.MarkdownMetadataValue:
    """Rows as a Markdown table."""
    if not rows:
        return dg.MetadataValue.md("_nothing_")
    header = list(rows[0])
    body = ["| " + " | ".join(str(row.get(name, "")) for name in header) + " |" for row in rows]
    return dg.MetadataValue.md("\n".join(["| " + " | ".join(header) + " |", "|" + "---|" * len(header), *body]))
