"""The documented table of orders is what the sandbox does."""

from pathlib import Path

from tests.sandbox.kite.order_table import tables

DOCUMENT = Path(__file__).parents[3] / "docs" / "kite-orders.md"


async def test_the_documented_table_is_what_comes_back(tmp_path: Path) -> None:
    found = await tables(tmp_path)
    assert found == DOCUMENT.read_text(), (
        "write it anew: python -m tests.sandbox.kite.order_table > docs/kite-orders.md"
    )
    denied = [line for line in found.splitlines() if line.count("`") == 2 and "| 400 " in line]
    sent_in_vain = [line for line in found.splitlines() if "| passes | 400 " in line or "| passes | 5" in line]
    assert len(denied) > 30
    assert sent_in_vain == [], "what our own check lets pass is taken"
