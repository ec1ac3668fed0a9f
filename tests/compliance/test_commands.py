"""`trading-platform audit`: what an officer types, and the exit codes that scripts rely on."""

from collections.abc import Iterator

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from tests.compliance.conftest import Write
from trading_platform import settings as settings_module
from trading_platform.compliance.commands import audit, compliance
from trading_platform.identifiers import GroupId
from trading_platform.storage.databases import Databases

runner = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"})


@pytest.fixture(autouse=True)
def address(databases: Databases, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    url = databases.settings.database_url
    assert url is not None
    monkeypatch.setenv("TP_DATABASE_URL", url.get_secret_value())
    monkeypatch.setenv("TP_HOME_DIR", str(databases.settings.home))
    settings_module.settings.cache_clear()
    yield
    settings_module.settings.cache_clear()


def test_seal_verify_and_show(group: GroupId, write: Write) -> None:
    write(3, symbol="BTC/USDT", intent_id="i1")
    write(1, symbol="ETH/USDT", intent_id="i2")
    sealed = runner.invoke(audit, ["seal", "--group", group])
    assert (sealed.exit_code, "4" in sealed.stdout) == (0, True)
    verified = runner.invoke(audit, ["verify", "--group", group])
    assert (verified.exit_code, "whole" in verified.stdout) == (0, True)
    shown = runner.invoke(audit, ["show", group, "--intent", "i2"])
    assert "ETH/USDT" in shown.stdout
    assert "BTC/USDT" not in shown.stdout


def test_a_broken_trail_is_named_and_ends_with_1(databases: Databases, group: GroupId, write: Write) -> None:
    write(3)
    runner.invoke(audit, ["seal", "--group", group])
    with databases.group_engine(group).begin() as connection:
        connection.execute(text(f"alter table group_{group}.audit_log disable trigger append_only"))
        connection.execute(text(f"update group_{group}.audit_log set actor = 'nobody' where seq = 2"))
    found = runner.invoke(audit, ["verify", "--group", group])
    assert found.exit_code == 1
    assert f"{group}: seq 2 was altered" in found.stdout


def test_an_unknown_group_is_refused_with_those_there_are(group: GroupId) -> None:
    found = runner.invoke(audit, ["verify", "--group", "nobody"])
    assert found.exit_code == 2
    assert "no group nobody" in found.output
    assert group in found.output


def test_a_report_before_the_models_are_built_says_what_to_do(group: GroupId) -> None:
    found = runner.invoke(compliance, ["report", "2026-11-19", "--group", group])
    assert found.exit_code == 2
    assert "compliance models" in found.output, found.output
