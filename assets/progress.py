"""How a long asset says how far it is: to the run's log always, and to whoever listens in this process."""

from collections.abc import Callable

import dagster as dg

Listener = Callable[[str, int, int], None]
"""Called with (what is being done, done, total)."""
listeners: list[Listener] = []
"""Whoever wants to know, in this process; `jobs.one_pass` draws its progress bars from it."""


def reporter(context: dg.AssetExecutionContext) -> Listener:
    """What an asset passes to the domain as its progress callback. The log gets a line a tenth, not a line a call."""
    logged: dict[str, int] = {}

    def report(what: str, done: int, total: int) -> None:
        tenth = int(10 * done / max(total, 1))
        if logged.get(what) != tenth:
            logged[what] = tenth
            context.log.info(f"{what}: {done} of {total}")
        for listener in listeners:
            listener(what, done, total)

    return report
