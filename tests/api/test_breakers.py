"""Circuit breakers over HTTP: who sees what, and who may ask for one to be armed."""

from datetime import UTC, datetime

import pytest

from tests.api.conftest import Api
from trading_platform.storage.group import AuditRow, BreakerRow

NOW = datetime(2026, 3, 2, tzinfo=UTC)


@pytest.fixture
def opened(api: Api) -> Api:
    with api.databases.group("g1") as session:  # type: ignore[arg-type]
        for name, state in (
            ("market:*", "OPEN"),
            ("venue:acc_ann", "OPEN"),
            ("venue:acc_cat", "OPEN"),
            ("market:X", "CLOSED"),
        ):
            session.merge(BreakerRow(name=name, state=state, reason="why", opened_at=NOW, trips=1))
    return api


async def test_traders_see_the_markets_and_their_own_venues(opened: Api) -> None:
    async def names(who: str, query: str = "") -> list[str]:
        answer = await opened.client.get(f"/api/breakers{query}", headers=await opened.log_in(who))
        return [row["name"] for row in answer.json()]

    assert await names("ann") == ["market:*", "market:X", "venue:acc_ann"]
    assert await names("ann", "?open=true") == ["market:*", "venue:acc_ann"]


async def test_arming_takes_the_role_the_words_and_an_open_breaker(opened: Api) -> None:
    ann, root = await opened.log_in("ann"), await opened.log_in("root")
    body = {"name": "market:*", "confirmation": "arm market:*"}
    path = "/api/breakers/arm"
    assert (await opened.client.post(path, json=body, headers=ann)).status_code == 403
    wrong = await opened.client.post(path, json=body | {"confirmation": "arm"}, headers=root)
    assert (wrong.status_code, wrong.json()["expected"]) == (422, "'arm market:*'")
    closed = {"name": "market:X", "confirmation": "arm market:X"}
    assert (await opened.client.post(path, json=closed, headers=root)).status_code == 404
    assert (await opened.client.post(path, json=body, headers=root)).status_code == 202
    with opened.databases.group("g1") as session:  # type: ignore[arg-type]
        assert session.get_one(BreakerRow, "market:*").arming_requested_by == "admin:root"
        events = session.query(AuditRow).filter(AuditRow.event_type == "BREAKER_ARM_REQ").all()
        assert [(row.actor, row.detail) for row in events] == [("admin:root", {"breaker": "market:*"})]
