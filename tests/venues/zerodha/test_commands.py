"""`trading-platform kite` as a person uses it: a real vault, and a broker on a socket that answers official samples."""

import asyncio
import re
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from click.testing import Result
from sqlalchemy import select
from typer.testing import CliRunner

from tests.venues.zerodha.replayed import Replayed, error
from trading_platform.accounts.users import NewUser, create_user
from trading_platform.accounts.vault import Vault
from trading_platform.identifiers import AccountId, GroupId, UserId
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import Account, Credential
from trading_platform.venues.zerodha import commands, vaulted

G1, ANN, ACCOUNT = GroupId("g1"), UserId("ann"), AccountId("kite_ann")


@pytest.fixture
def person(platform: Databases, kite: Replayed, monkeypatch: pytest.MonkeyPatch) -> Databases:
    """A user with a live account and its keys; commands find this deployment and our broker."""
    create_user(
        platform, NewUser("ann@example.com", "Ann", "trader", G1, "four plain words here", user_id=ANN), actor="t"
    )
    vault = Vault(platform.settings)
    with platform.group(G1) as session:
        for account, keys in ((ACCOUNT, {"api_key": "the_key", "api_secret": "secret_z"}), ("bare", {})):
            session.add(Account(user_id=ANN, account_id=account, venue="zerodha", kind="live", currency="INR"))
            session.add_all(vault.seal(ANN, AccountId(account), name, secret) for name, secret in keys.items())
    monkeypatch.setattr(commands, "settings", lambda: platform.settings)
    monkeypatch.setattr(vaulted, "ROOT", kite.root)
    monkeypatch.setenv("COLUMNS", "400")
    return platform


async def kite_command(*words: str, typed: str = "") -> Result:
    """The command in a thread: it has an event loop of its own, and our broker needs this one."""
    return await asyncio.to_thread(CliRunner().invoke, commands.app, list(words), input=typed)


def secrets_of(platform: Databases) -> set[str]:
    with platform.group(G1) as session:
        return set(session.scalars(select(Credential.name).where(Credential.account_id == ACCOUNT)))


async def test_a_person_logs_in_and_out(person: Databases, kite: Replayed, monkeypatch: pytest.MonkeyPatch) -> None:
    pasted: dict[str, Any] = {}

    def prompt(_: str) -> str:
        return str(pasted["address"])

    def show(text: object, **_: Any) -> None:
        if "redirect_params" in str(text):
            carried = parse_qs(urlsplit(str(text)).query)["redirect_params"][0]
            pasted["address"] = f"https://ours/api/kite/callback?request_token=req&status=success&{carried}"

    monkeypatch.setattr(commands.typer, "prompt", prompt)
    monkeypatch.setattr(commands.console, "print", show)
    done = await kite_command("login", "--account", ACCOUNT)
    assert done.exit_code == 0, done.output
    assert kite.asked[-1].form["request_token"] == "req"
    assert secrets_of(person) == {"api_key", "api_secret", "access_token", "kite_session"}
    assert (await kite_command("logout", "--account", ACCOUNT)).exit_code == 0
    assert secrets_of(person) == {"api_key", "api_secret"}


async def test_a_known_token_comes_by_option_or_standard_input(person: Databases, kite: Replayed) -> None:
    assert (await kite_command("login", "--account", ACCOUNT, "--request-token", "a")).exit_code == 0
    assert (await kite_command("login", "--account", ACCOUNT, "--request-token", "-", typed="b\n")).exit_code == 0
    assert [asked.form["request_token"] for asked in kite.asked] == ["a", "b"]


async def test_refusals_are_one_line(person: Databases, kite: Replayed) -> None:
    kite.answers["POST", "/session/token"] = error(403, "TokenException", "Invalid `checksum`.")
    foreign = "https://ours/cb?" + urlencode({"request_token": "req", "state": "bm90IG91cnM="})
    for words, typed, told in (
        (("login", "--account", ACCOUNT, "--request-token", "x"), "", "LOGIN_CHECKSUM"),
        (("login", "--account", "nobody"), "", "no open account 'nobody'"),
        (("login", "--account", "bare"), "", "no API key and secret"),
        (("login", "--account", ACCOUNT), f"{foreign}\n", "does not come from this log-in"),
        (("login", "--account", ACCOUNT), "https://ours/cb?status=cancelled\n", "no request_token"),
    ):
        refused = await kite_command(*words, typed=typed)
        assert refused.exit_code == 1
        assert told in refused.output
        assert "Traceback" not in refused.output
    assert secrets_of(person) == {"api_key", "api_secret"}


async def test_status_names_every_account(person: Databases) -> None:
    told = (await kite_command("status")).output
    assert re.search(rf"{ACCOUNT}.*g1.*live.*no.*log in", told), told
    assert "bare" in told
    assert "no API key" in told


async def test_preflight_says_what_is_missing_and_ends_with_1(person: Databases) -> None:
    told = await kite_command("preflight", "--account", ACCOUNT)
    assert told.exit_code == 1
    assert "there is no session for today" in told.output
