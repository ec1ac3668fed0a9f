"""`trading-platform users …`: people are added, changed and shut out, and their sessions end with it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
from sqlalchemy import select
from typer.testing import CliRunner, Result

from trading_platform.accounts import commands, passwords
from trading_platform.accounts.sessions import Sessions, valkey
from trading_platform.accounts.vault import Vault
from trading_platform.identifiers import AccountId, GroupId, UserId
from trading_platform.storage.control import User
from trading_platform.storage.databases import Databases

T = TypeVar("T")
EMAIL = "ann@example.com"


def test_the_life_of_a_user(platform: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "settings", lambda: platform.settings)

    def run(*arguments: str, password: str = "") -> Result:
        return CliRunner().invoke(commands.users, list(arguments), input=password + "\n")

    async def with_sessions(call: Callable[[Sessions], Awaitable[T]]) -> T:
        redis = valkey(platform.settings)
        try:
            return await call(Sessions(redis))
        finally:
            await redis.aclose()

    weak = run("add", EMAIL, "--group", "g7", "--password-stdin", password="short")
    assert weak.exit_code == 1
    assert "5 characters; expected 15" in " ".join(weak.output.split())
    added = run("add", EMAIL, "--name", "Ann", "--group", "g7", "--password-stdin", password="the first password")
    assert added.exit_code == 0, added.output
    assert "the first password" not in added.output
    with platform.control() as session:
        user = session.scalars(select(User)).one()
    user_id = UserId(user.user_id)
    assert (user.email, user.group_id, user.role) == (EMAIL, "g7", "trader")

    assert run("role", EMAIL, "king").exit_code == 1
    assert run("role", EMAIL, "compliance").exit_code == 0
    assert run("passwd", EMAIL, "--password-stdin", password="the second password").exit_code == 0
    token = asyncio.run(with_sessions(lambda all_: all_.start(user_id, GroupId("g7"), "compliance", EMAIL, "Ann")))
    assert asyncio.run(with_sessions(lambda all_: all_.find(token))) is not None
    assert "1 sessions ended" in run("disable", EMAIL).output
    assert asyncio.run(with_sessions(lambda all_: all_.find(token))) is None
    with platform.control() as session:
        user = session.get_one(User, user_id)
    assert passwords.matches(user.password_hash, "the second password")
    assert (user.role, user.disabled_at is not None) == ("compliance", True)
    assert "disabled" in run("list").output
    assert run("disable", "nobody@example.com").exit_code == 1

    with platform.group(GroupId("g7")) as session:
        session.add(Vault(platform.settings).seal(user_id, AccountId("a"), "api_key", "sealed long ago"))
    assert "1 credentials now under key 2" in run("rotate-keys", "--new").output
    with platform.group(GroupId("g7")) as session:
        found = Vault(platform.settings).open_all(session, user_id, AccountId("a"))
    assert found["api_key"].get_secret_value() == "sealed long ago"
