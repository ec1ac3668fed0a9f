"""Users, groups and passwords."""

import pytest
from argon2 import PasswordHasher
from sqlalchemy import inspect, select

from trading_platform.accounts import passwords
from trading_platform.accounts.users import (
    FIRST_USERS_FILE,
    NewUser,
    UserError,
    create_user,
    disable_user,
    ensure_group,
    first_users,
    set_password,
)
from trading_platform.identifiers import GroupId, UserId
from trading_platform.settings import Settings
from trading_platform.storage.control import LoginEvent, User
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import RiskLimits

GOOD = "four plain words here"


def new(email: str = "a@example.com", group: str = "g1", password: str = GOOD) -> NewUser:
    return NewUser(email, "A", "trader", GroupId(group), password)


def test_the_first_user_of_a_group_creates_its_schema_and_is_one_whatever_the_letters(platform: Databases) -> None:
    user_id = create_user(platform, new(), actor="test")
    assert "orders" in inspect(platform.group_engine(GroupId("g1"))).get_table_names(schema="group_g1")
    with platform.group(GroupId("g1")) as session:
        assert {row.currency for row in session.scalars(select(RiskLimits).where(RiskLimits.user_id == user_id))} == {
            "USDT",
            "INR",
        }
    with platform.control() as session:
        assert session.get(User, user_id).password_hash.startswith("$argon2id$v=19$m=65536,t=3,p=4$")  # type: ignore[union-attr]

    with pytest.raises(UserError, match="already exists"):
        create_user(platform, new("A@Example.com"), actor="test")


@pytest.mark.parametrize("group", ["", "G1", "1g", 'g"; drop schema control', "x" * 41])
def test_a_group_name_that_could_break_a_statement_is_refused(group: str) -> None:
    with pytest.raises(UserError, match="expected a lower-case letter"):
        ensure_group(Databases(Settings()), GroupId(group))


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("fourteen chars", "14 characters"),
        ("a" * 20, "different characters"),
        ("x" * 300, "300"),
        ("alexandra-alexandra1", None),
    ],
)
def test_password_policy(password: str, why: str | None) -> None:
    if why is None:
        with pytest.raises(passwords.WeakPasswordError, match="e-mail"):
            passwords.check_policy(password, "alexandra@example.com")
    else:
        with pytest.raises(passwords.WeakPasswordError, match=why):
            passwords.check_policy(password, "alexandra@example.com")


def test_the_hash_is_verified_by_an_independent_hasher_and_unicode_forms_agree() -> None:
    assert PasswordHasher().verify(passwords.hash_password(GOOD), GOOD)
    assert passwords.matches(passwords.hash_password("caf\u00e9 au lait matin"), "cafe\u0301 au lait matin")
    assert not passwords.matches(None, "a password that nobody has")
    assert not passwords.matches("not a hash", GOOD)


def test_weaker_parameters_ask_for_a_rehash() -> None:
    assert passwords.needs_rehash(PasswordHasher(time_cost=1, memory_cost=8192).hash(GOOD))
    assert not passwords.needs_rehash(passwords.hash_password(GOOD))


def test_first_users_are_made_once_with_a_private_file_even_when_interrupted(platform: Databases) -> None:
    made = first_users(platform)
    path = platform.settings.secrets_dir / FIRST_USERS_FILE
    assert path.stat().st_mode & 0o777 == 0o600
    assert {user.group_id for user in made if user.role == "trader"} == {"g1", "g2"}
    assert all(user.password in path.read_text() for user in made)
    assert first_users(platform) == [], "they exist"
    with platform.control() as session:
        assert set(session.scalars(select(User.user_id))) == {"alice", "bob", "carol", "dave", "admin"}

    before = path.read_text()
    with platform.control() as session:
        session.delete(session.get(User, "bob"))
    again = first_users(platform)
    assert next(user.password for user in again if user.email == "bob@example.com") in before
    with platform.control() as session:
        assert session.get(User, "bob") is not None


def test_changes_leave_a_trace_in_the_access_audit(platform: Databases) -> None:
    create_user(platform, new(), actor="root")
    assert first_users(platform) == [], "somebody exists"
    set_password(platform, "a@example.com", "another good password", actor="root")
    assert disable_user(platform, "A@example.com", actor="root") == UserId(platform_user(platform))
    with platform.control() as session:
        events = session.scalars(select(LoginEvent).order_by(LoginEvent.event_id)).all()
    assert [event.action for event in events] == ["user_created", "password_changed", "user_disabled"]
    assert all("by root" in event.result for event in events)


def platform_user(platform: Databases) -> str:
    with platform.control() as session:
        return session.scalars(select(User.user_id)).one()
