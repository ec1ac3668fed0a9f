"""Rule files: what is wrong with one is found when it is loaded, and every table of every file is used."""

import ast
import tomllib
from datetime import date, timedelta
from pathlib import Path

import pytest

from trading_platform import markets
from trading_platform.markets.effective import DATA, Effective, NoRuleError, RuleTable, RuleTableError, load

OLD = """
[[rate]]
name = "tax"
rate = "1"
from = 2024-01-01
until = 2024-12-31
source = "circular 1"
"""
NEW = """
[[rate]]
name = "tax"
rate = "2"
from = 2025-01-01
source = "circular 2"
"""
UNDATED = {"venues.toml", "instruments.toml", "exceptional_days.toml"}
"""Files whose rows are not rules in force from a day on."""


class RateRow(Effective):
    name: str
    rate: str


def table(folder: Path, text: str) -> RuleTable[RateRow]:
    path = folder / "rates.toml"
    path.write_text(text)
    return load(path, "rate", RateRow, lambda row: row.name)


def test_the_row_of_a_day(tmp_path: Path) -> None:
    rates = table(tmp_path, NEW + OLD)
    for day, rate, backdated in (
        (date(2023, 12, 31), "1", True), (date(2024, 1, 1), "1", False), (date(2024, 12, 31), "1", False),
        (date(2025, 1, 1), "2", False), (date(2040, 1, 1), "2", False),
    ):  # fmt: skip
        found = rates.at("tax", day)
        assert (found.row.rate, found.backdated) == (rate, backdated)


def test_a_rule_that_ended_is_not_in_force(tmp_path: Path) -> None:
    rates = table(tmp_path, OLD)
    with pytest.raises(NoRuleError, match="ended on 2024-12-31"):
        rates.at("tax", date(2025, 1, 1))
    assert rates.find("tax", date(2025, 1, 1)) is None
    with pytest.raises(NoRuleError, match="no rule for duty; it has tax"):
        rates.at("duty", date(2025, 1, 1))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (OLD + NEW.replace("2025-01-01", "2024-12-31"), "two rows for tax hold on 2024-12-31"),
        (OLD + NEW.replace("2025-01-01", "2025-01-02"), "no row for tax holds between 2024-12-31 and 2025-01-02"),
        (NEW + NEW.replace("2025-01-01", "2026-01-01"), "needs an `until`"),
        (OLD.replace("until", "untill"), "untill"),
        (OLD.replace("2024-12-31", "2023-12-31"), "is before `from`"),
        (OLD.replace("circular 1", ""), "source"),
        (OLD.replace("from = 2024-01-01", ""), "from"),
        (OLD.replace("[[rate]]", "[[rates]]"), r"\[\[rate\]\]"),
        ("[[rate", "cannot read"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_when_it_is_loaded(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(RuleTableError, match=why):
        table(tmp_path, text)


def test_every_table_of_every_rule_file_is_loaded_by_the_code() -> None:
    """A misspelt table name would silently take its rules out of force."""
    sources = [ast.parse(path.read_text()) for path in Path(markets.__file__).parent.glob("*.py")]
    calls = [node for tree in sources for node in ast.walk(tree) if isinstance(node, ast.Call)]
    loaded = {
        call.args[1].value
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "load" and isinstance(call.args[1], ast.Constant)
    }
    files = [path for path in DATA.glob("*.toml") if path.name not in UNDATED]
    assert {name for path in files for name in tomllib.loads(path.read_text())} == loaded


def test_no_rule_begins_in_a_future_that_nobody_has_announced() -> None:
    for path in DATA.glob("*.toml"):
        if path.name not in UNDATED:
            rows = [row for rows in tomllib.loads(path.read_text()).values() for row in rows]
            assert all(row["from"] <= date(2026, 11, 23) + timedelta(days=366) for row in rows), path.name
