"""The import from the old system: every documented shape, twice without a double, mistakes named by line."""

import json
import sqlite3
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import func, select

from trading_platform.accounts import passwords
from trading_platform.accounts.legacy import Report, import_legacy
from trading_platform.accounts.legacy_files import LegacyFormatError, read
from trading_platform.accounts.users import user_id_of
from trading_platform.accounts.vault import Vault
from trading_platform.identifiers import GroupId
from trading_platform.storage.control import LoginEvent, User
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import Account, Credential, LegacySession

SAMPLES = Path(__file__).resolve().parents[2] / "docs" / "samples" / "legacy"
G1, G2 = GroupId("g1"), GroupId("g2")


def counts(report: Report) -> dict[str, tuple[int, int, int]]:
    return {table: (count["added"], count["existing"], count["failed"]) for table, count in report.counts.items()}


def csv_folder(tmp_path: Path, **tables: str) -> Path:
    for name, text in tables.items():
        (tmp_path / f"{name}.csv").write_text(text)
    return tmp_path


def test_the_samples_go_in_once(platform: Databases, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("users", "api_keys", "sessions"):
        (tmp_path / f"{name}.csv").write_bytes((SAMPLES / f"{name}.csv").read_bytes())
    planned = import_legacy(platform, tmp_path, group_id=G1, dry_run=True)
    assert counts(planned) == {"users": (4, 0, 0), "api_keys": (2, 0, 0), "sessions": (3, 0, 0)}
    with platform.control() as session:
        assert session.scalar(select(func.count()).select_from(User)) == 0
    assert not platform.settings.secrets_dir.exists()

    done = import_legacy(platform, tmp_path, group_id=G1)
    assert counts(done) == counts(planned)
    assert done.without_password == ["jonas@example.com", "ines@example.com"]
    again = import_legacy(platform, tmp_path, group_id=G1)
    assert counts(again) == {"users": (0, 4, 0), "api_keys": (0, 2, 0), "sessions": (0, 3, 0)}

    meera = user_id_of("meera@example.com")
    with platform.control() as session:
        user = session.get_one(User, meera)
        assert (user.role, user.group_id, user.display_name) == ("trader", "g1", "Meera Rao")
        assert user.password_hash.startswith("$argon2id$v=19$m=65536,t=3,p=4$c2FtcGxl")
        assert session.get_one(User, user_id_of("ines@example.com")).role == "compliance"
        assert session.get_one(User, user_id_of("former@example.com")).disabled_at is not None
        events = session.scalars(select(LoginEvent.action)).all()
        assert events.count("credential_imported") == 2
    with platform.group(G1) as session:
        account = session.scalars(select(Account)).one()
        assert (account.kind, account.venue, account.currency, account.armed_at) == ("live", "zerodha", "INR", None)
        secrets = Vault(platform.settings).open_all(session, meera, account.account_id)  # type: ignore[arg-type]
        assert {name: secret.get_secret_value() for name, secret in secrets.items()} == {
            "api_key": "sample-kite-key-0001", "api_secret": "sample-kite-secret-0001",
        }  # fmt: skip
        first = session.get_one(LegacySession, (meera, "S-1001"))
        assert (first.net_pnl, first.trades, first.wins) == (Decimal("-1250.75"), 14, 6)
        assert first.started_at.isoformat() == "2024-03-01T03:45:00+00:00"
        assert first.details == {"strategy": "opening_range"}
    with platform.group(G2) as session:
        assert session.scalar(select(func.count()).select_from(Credential)) == 2
    assert "sample-kite" not in str(done) + repr(read(tmp_path)) + capsys.readouterr().out


def test_a_dump_and_an_sqlite_file_hold_the_same(platform: Databases, tmp_path: Path) -> None:
    dump = import_legacy(platform, SAMPLES / "dump.sql", group_id=G1, timezone=ZoneInfo("Asia/Kolkata"))
    assert counts(dump) == {"users": (2, 0, 0), "api_keys": (1, 0, 0), "sessions": (1, 0, 0)}
    with platform.control() as session:
        names = set(session.scalars(select(User.display_name)))
        assert names == {"Olga O'Neill", "Piet; de 'Oude' (jr.)"}
    with platform.group(G1) as session:
        found = session.get_one(LegacySession, (user_id_of("olga@example.com"), "501"))
        assert found.started_at.isoformat() == "2024-02-01T04:30:00+00:00"

    path = tmp_path / "old.db"
    with sqlite3.connect(path) as connection:
        connection.execute("create table users (id integer, email text, name text, is_active integer)")
        connection.execute("insert into users values (11, 'OLGA@example.com', 'Olga O''Neill', 1)")
        connection.execute("create table api_keys (user_id integer, exchange text, api_key text, api_secret text)")
        connection.execute("insert into api_keys values (11, 'binance', 'sample-key-11', 'sample-secret-11')")
    same = import_legacy(platform, path, group_id=G1)
    assert counts(same) == {"users": (0, 1, 0), "api_keys": (0, 1, 0), "sessions": (0, 0, 0)}


def test_json_as_one_object_or_a_file_a_table(tmp_path: Path) -> None:
    users = [{"id": 1, "email": "a@example.com", "active": True}]
    (tmp_path / "everything.json").write_text(json.dumps({"users": users, "other": [1]}))
    (tmp_path / "users.json").write_text(json.dumps(users))
    for name in ("everything.json", "users.json"):
        record = read(tmp_path / name)["users"][0]
        assert (record.text("id"), record.text("email"), record.text("active")) == ("1", "a@example.com", "True")
        assert record.where == f"{name} users entry 1"


def test_each_mistake_is_named_by_its_line_and_the_others_go_in(platform: Databases, tmp_path: Path) -> None:
    source = csv_folder(
        tmp_path,
        users="id,email,role\n1,good@example.com,user\n2,no address,user\n3,x@example.com,king\n4,,user\n",
        api_keys="user_id,exchange,api_key,api_secret\n1,binance,kkk,sss\n9,binance,kkk,sss\n1,nyse,kkk,sss\n1,zerodha,kkk,\n",
        sessions="id,user_id,exchange,started_at,trades,wins,net_pnl\n"
        "a,1,binance,2024-01-01T00:00:00Z,3,4,1\n"
        "b,1,binance,2024-01-01 00:00:00,3,1,1\n"
        "c,1,binance,2024-01-01T00:00:00Z,3,1,NaN\n"
        'd,1,binance,2024-01-01T00:00:00Z,3,1,"1,5"\n'
        "e,good@example.com,binance,2024-01-01T00:00:00Z,3,1,1.5\n",
    )
    report = import_legacy(platform, source, group_id=G1)
    assert counts(report) == {"users": (1, 0, 3), "api_keys": (1, 0, 3), "sessions": (1, 0, 4)}
    assert [problem.partition(":")[0] for problem in report.problems] == [
        "users.csv line 3", "users.csv line 4", "users.csv line 5",
        "api_keys.csv line 3", "api_keys.csv line 4", "api_keys.csv line 5",
        "sessions.csv line 2", "sessions.csv line 3", "sessions.csv line 4", "sessions.csv line 5",
    ]  # fmt: skip
    assert "no time zone" in report.problems[7]
    assert "kkk" not in str(report.problems)
    assert "sss" not in str(report.problems)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("notes.txt", "hello", "not understood"),
        ("users.json", "{", "not JSON"),
        ("users.json", "[1]", "expected an object"),
        ("users.csv", "", "found no record"),
        ("dump.sql", "insert into users values (1, 'a');", "--column-inserts"),
        ("dump.sql", "insert into users (id, email) values (1);", "line 1: 1 values for 2 columns"),
        ("old.db", "not a database, though long enough to have a header", "not an SQLite file"),
    ],
)
def test_what_cannot_be_read_is_one_clear_error(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(LegacyFormatError, match=message):
        read(tmp_path / name)


def test_an_imported_hash_logs_in_with_the_old_password(platform: Databases, tmp_path: Path) -> None:
    old = passwords.hash_password("the password of old")
    source = csv_folder(tmp_path, users=f'id,email,password_hash\n1,a@example.com,"{old}"\n')
    report = import_legacy(platform, source, group_id=G1)
    assert report.without_password == []
    with platform.control() as session:
        stored = session.get_one(User, user_id_of("a@example.com")).password_hash
    assert passwords.matches(stored, "the password of old")
