"""The page of denials is as the code has them, and every code can be met and looked up."""

import re
from pathlib import Path

from trading_platform.execution.denial_codes import ABOUT, Denial
from trading_platform.execution.denials_page import page

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_not_stale() -> None:
    assert (ROOT / "docs" / "denials.md").read_text() == page(), "run `make denials` and commit docs/denials.md"


def test_every_code_is_explained_and_reads_category_condition() -> None:
    assert set(ABOUT) == set(Denial)
    assert all(re.fullmatch(r"[A-Z]+(_[A-Z]+)+", code) for code in Denial)


def test_every_code_of_risk_is_used_where_orders_are_judged() -> None:
    sources = (ROOT / "trading_platform" / "execution").glob("*.py")
    used = {
        code
        for source in sources
        if source.name != "denial_codes.py"
        for code in re.findall(r"\bDenial\.([A-Z_]+)", source.read_text())
    }
    assert used == set(Denial)


def test_the_rules_of_the_markets_are_on_the_page() -> None:
    for code in ("PRICE_CIRCUIT", "BAN_PERIOD", "BAN_LIST_MISSING", "INSTRUMENT_UNTRADABLE"):
        assert f"| `{code}` |" in page()
