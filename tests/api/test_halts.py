"""The kill switch: who may stop what, who may let it go on, and what is written down."""

from collections.abc import Iterator

import pytest
from sqlalchemy import delete, select

from tests.api.conftest import Api
from trading_platform.identifiers import GroupId
from trading_platform.settings import Settings
from trading_platform.storage.control import Halt
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import AuditRow

WHY = {"reason": "prices look wrong"}


@pytest.fixture(autouse=True)
def _no_halts_left(deployment: Settings) -> Iterator[None]:
    yield
    databases = Databases(deployment)
    with databases.control() as session:
        session.execute(delete(Halt))
    databases.close()


def clearing(halt: dict[str, object], **changed: str) -> dict[str, str]:
    words = f"clear {halt['scope']} {halt['scope_id']}"
    return {"reason": "checked", "confirmation": words} | changed


@pytest.mark.parametrize(
    ("who", "body", "status"),
    [
        ("ann", {}, 201),
        ("ann", {"scope": "account", "scope_id": "acc_ann"}, 201),
        ("ann", {"scope": "account", "scope_id": "acc_cat"}, 404),
        ("ann", {"scope": "account", "scope_id": "acc_cat", "user_id": "cat"}, 403),
        ("ann", {"scope": "user", "scope_id": "cat"}, 403),
        ("ann", {"scope": "group", "scope_id": "g1"}, 403),
        ("ann", {"scope": "platform"}, 403),
        ("builder", {"scope": "group", "scope_id": "g1"}, 201),
        ("builder", {"scope": "platform"}, 201),
        ("builder", {"scope": "user", "scope_id": "ann"}, 403),
        ("officer", {"scope": "user", "scope_id": "ben"}, 201),
        ("officer", {"scope": "account", "scope_id": "acc_ben", "user_id": "ben"}, 201),
        ("officer", {"scope": "group", "scope_id": "none"}, 404),
        ("root", {"scope": "platform"}, 201),
    ],
)
async def test_who_may_stop_what(api: Api, who: str, body: dict[str, str], status: int) -> None:
    answer = await api.client.post("/api/halts", json={**WHY, **body}, headers=await api.log_in(who))
    assert answer.status_code == status, answer.text
    with api.databases.control() as session:
        assert len(session.scalars(select(Halt)).all()) == (status == 201)


async def test_stopping_twice_is_one_halt(api: Api) -> None:
    root, builder = await api.log_in("root"), await api.log_in("builder")
    first = await api.client.post("/api/halts", json={**WHY, "scope": "platform"}, headers=root)
    again = await api.client.post("/api/halts", json={**WHY, "scope": "platform"}, headers=builder)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()


async def test_clearing_takes_the_words_and_the_right(api: Api) -> None:
    ann, officer = await api.log_in("ann"), await api.log_in("officer")
    halt = (
        await api.client.post("/api/halts", json={**WHY, "scope": "user", "scope_id": "ann"}, headers=officer)
    ).json()
    path = f"/api/halts/{halt['halt_id']}"
    wrong = await api.client.delete(path, params=clearing(halt, confirmation="clear"), headers=officer)
    assert (wrong.status_code, wrong.json()["expected"]) == (422, "'clear user ann'")
    assert (await api.client.delete(path, params=clearing(halt), headers=ann)).status_code == 403
    cleared = await api.client.delete(path, params=clearing(halt), headers=officer)
    assert (cleared.status_code, cleared.json()["cleared_by"]) == (200, "officer")
    assert (await api.client.delete(path, params=clearing(halt), headers=officer)).status_code == 422
    assert (await api.client.get("/api/halts", headers=ann)).json() == []


async def test_a_trader_clears_what_the_trader_set(api: Api) -> None:
    ann = await api.log_in("ann")
    halt = (await api.client.post("/api/halts", json=WHY, headers=ann)).json()
    path = f"/api/halts/{halt['halt_id']}"
    assert (await api.client.delete(path, params=clearing(halt), headers=await api.log_in("ben"))).status_code == 404
    assert (await api.client.delete(path, params=clearing(halt), headers=ann)).status_code == 200


async def test_everybody_sees_the_halts_that_touch_them_and_no_others(api: Api) -> None:
    root = await api.log_in("root")
    for body in (
        {"scope": "platform"}, {"scope": "group", "scope_id": "g2"}, {"scope": "user", "scope_id": "cat"},
        {"scope": "account", "scope_id": "acc_ann", "user_id": "ann"},
    ):  # fmt: skip
        assert (await api.client.post("/api/halts", json={**WHY, **body}, headers=root)).status_code == 201
    seen = {}
    for name in ("ann", "ben", "cat", "root"):
        rows = (await api.client.get("/api/halts", headers=await api.log_in(name))).json()
        seen[name] = {row["scope"] for row in rows}
    assert seen == {
        "ann": {"platform", "account"}, "ben": {"platform", "group"}, "cat": {"platform", "user"},
        "root": {"platform", "group", "user", "account"},
    }  # fmt: skip


async def test_a_platform_halt_is_in_every_groups_audit(api: Api) -> None:
    root = await api.log_in("root")
    halt = (await api.client.post("/api/halts", json={**WHY, "scope": "platform"}, headers=root)).json()
    await api.client.delete(f"/api/halts/{halt['halt_id']}", params=clearing(halt), headers=root)
    for group in ("g1", "g2"):
        with api.databases.group(GroupId(group)) as session:
            rows = session.scalars(
                select(AuditRow).where(AuditRow.event_type.in_(("HALT", "CLEAR"))).order_by(AuditRow.seq)
            )
            found = [(row.event_type, row.actor) for row in rows if row.detail["halt_id"] == halt["halt_id"]]
        assert found == [("HALT", "admin:root"), ("CLEAR", "admin:root")]
