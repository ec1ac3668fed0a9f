"""Options of the `learn` commands that read files of bars: what the caller knows better than detection does."""

from typing import Annotated, Literal

import typer

from trading_platform.market_data.reading import ReadOptions

TimeZone = Annotated[
    str | None,
    typer.Option(help="Zone of times without an offset, such as Asia/Kolkata. Default: the venue's."),
]
VenueName = Annotated[
    str | None,
    typer.Option(help="`binance`, `bitfinex` or `nse`: sessions and costs are its. Default: by the data."),
]
SymbolName = Annotated[str | None, typer.Option(help="The symbol, where neither name nor column tells it.")]
Columns = Annotated[
    str | None,
    typer.Option(help="Columns from left to right, as time,open,high,low,close,volume; - leaves one out."),
]
Labels = Annotated[
    str | None,
    typer.Option(help="`start` or `end`: what a bar's time marks. Default: found out where provable."),
]
AcceptLoss = Annotated[bool, typer.Option(help="Go on with files that lose more than 5 % of their rows.")]


def reading(
    time_zone: str | None,
    venue: str | None,
    symbol: str | None,
    columns: str | None,
    labels: str | None,
    *,
    accept_loss: bool,
) -> ReadOptions:
    """The options as reading wants them. Raises ValueError on a value that is none of the allowed."""
    if venue not in {None, "binance", "bitfinex", "nse"}:
        raise ValueError(f"--venue {venue!r}: expected binance, bitfinex or nse")
    return ReadOptions(
        time_zone=time_zone,
        labels=_labels(labels),
        columns=tuple(name.strip() for name in columns.split(",")) if columns else (),
        symbol=symbol,
        venue=venue,
        accept_loss=accept_loss,
    )


def _labels(text: str | None) -> Literal["start", "end"] | None:
    if text in {None, "start", "end"}:
        return text  # type: ignore[return-value]
    raise ValueError(f"--labels {text!r}: expected start or end")
