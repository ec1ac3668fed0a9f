"""docs/denials.md, made from the codes: `python -m trading_platform.execution.denials_page > docs/denials.md`.

Risk's own codes come from their table; the rules of the markets and of the broker's orders name theirs where they apply,
so they are read from the source of `markets/` and stand with the module that explains them.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

from trading_platform import markets
from trading_platform.execution.denial_codes import ABOUT, Denial

HEADING = """# Denials

Why an order was not sent. An intent that risk keeps back has the state DENIED and its denial reads
`CATEGORY_CONDITION: key=value ...`; find the code here. What was learned from a denial by looking at its figures is in
the audit trail, as an entry RISK_BLOCK.

This page is made from the code: `make denials`.

## Risk

Entries are held to all of these. An order that only leaves a position is held to those marked: there the venue itself
would refuse it.

| code | exits too | meaning | what to do |
|---|---|---|---|
"""
MARKETS = """
## Rules of the markets

Checked before anything is sent, at the same place, with the nearest value that would pass where there is one. Exits are
held to them, except to those about new exposure (`BAN_...`).

| code | rule of |
|---|---|
"""


def page() -> str:
    """The whole page."""
    rows = [
        f"| `{code}` | {'yes' if ABOUT[code].exits_too else ''} | {ABOUT[code].meaning} | {ABOUT[code].remedy} |"
        for code in sorted(Denial)
    ]
    rules = [f"| `{code}` | {about} |" for code, about in sorted(set(_market_codes()))]
    return HEADING + "\n".join(rows) + "\n" + MARKETS + "\n".join(rules) + "\n"


def _market_codes() -> Iterator[tuple[str, str]]:
    """(code, first line of the module that denies with it) of every `Denial("CODE", ...)` in the markets' room."""
    for path in sorted(Path(markets.__file__).parent.glob("*.py")):
        tree = ast.parse(path.read_text())
        about = (ast.get_docstring(tree) or path.stem).splitlines()[0].rstrip(":")
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Denial":
                first = node.args[0] if node.args else None
                if isinstance(first, ast.Constant) and isinstance(first.value, str):
                    yield first.value, about


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201 - a page on standard output
