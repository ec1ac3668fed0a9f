"""Logging in: by form and by program, throttled, from our own pages only; sessions end."""

import re

import pytest
from sqlalchemy import select

from tests.api.conftest import PASSWORD, Api
from trading_platform.api.routes.login import local_path
from trading_platform.storage.control import LoginEvent

FORM = {"email": "ann@example.com", "password": PASSWORD}
OURS = {"Origin": "http://platform.test"}


async def test_the_form_logs_in_and_goes_where_the_user_wanted(api: Api) -> None:
    page = await api.client.get("/login", params={"next": "/dagster/runs"})
    assert 'value="/dagster/runs"' in page.text
    assert "script" not in page.text
    answer = await api.client.post("/login", data={**FORM, "next": "/dagster/runs"}, headers=OURS)
    assert (answer.status_code, answer.headers["location"]) == (303, "/dagster/runs")
    cookie = answer.headers["set-cookie"]
    assert re.search(r"tp_session=[\w-]{43};", cookie)
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Secure" not in cookie
    assert (await api.client.get("/api/me")).json()["user_id"] == "ann"


async def test_behind_https_the_cookie_is_secure(api: Api) -> None:
    answer = await api.client.post("/login", data=FORM, headers={**OURS, "X-Forwarded-Proto": "https"})
    assert "Secure" in answer.headers["set-cookie"]
    assert "max-age" in answer.headers["strict-transport-security"]


async def test_a_form_sent_by_another_site_does_not_log_in(api: Api) -> None:
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site", **OURS}, {}):
        answer = await api.client.post("/login", data=FORM, headers=headers)
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "path",
    [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "\\/evil",
        "javascript:alert(1)",
        "",
        "x",
        "/\t/evil",
    ],
)
def test_no_next_leads_off_the_site(path: str) -> None:
    assert local_path(path) == "/app/"


async def test_what_a_user_typed_is_shown_as_text(api: Api) -> None:
    answer = await api.client.post("/login", data={"email": '"><script>x</script>', "password": "x"}, headers=OURS)
    assert answer.status_code == 401
    assert "<script>" not in answer.text


async def test_the_same_refusal_for_a_wrong_password_an_unknown_and_a_disabled_user(api: Api) -> None:
    answers = [
        await api.client.post("/api/session", json={"email": email, "password": "a wrong password"})
        for email in ("ann@example.com", "nobody@example.com")
    ]
    assert {answer.status_code for answer in answers} == {401}
    bodies = [{**answer.json(), "trace_id": None} for answer in answers]
    assert bodies[0] == bodies[1]
    assert set(bodies[0]) >= {"title", "status", "detail", "remedy"}


async def test_the_sixth_failure_waits_even_with_the_right_password_and_others_do_not(api: Api) -> None:
    wrong = {"email": "cat@example.com", "password": "a wrong password"}
    for _ in range(5):
        assert (await api.client.post("/api/session", json=wrong)).status_code == 401
    answer = await api.client.post("/api/session", json={**wrong, "password": PASSWORD})
    assert answer.status_code == 429
    assert 0 < int(answer.headers["retry-after"]) <= 300
    assert (await api.client.post("/api/session", json=FORM)).status_code == 201
    with api.databases.control() as session:
        newest = session.scalars(
            select(LoginEvent.result).where(LoginEvent.email == "cat@example.com").order_by(LoginEvent.event_id.desc())
        ).all()
    assert newest[:6] == ["throttled", *["refused"] * 5]


async def test_a_success_forgives_earlier_failures(api: Api) -> None:
    wrong = {"email": "ann@example.com", "password": "a wrong password"}
    for _ in range(4):
        await api.client.post("/api/session", json=wrong)
    assert (await api.client.post("/api/session", json=FORM)).status_code == 201
    for _ in range(4):
        assert (await api.client.post("/api/session", json=wrong)).status_code == 401


async def test_logging_out_ends_this_session_or_all(api: Api) -> None:
    first, second, third = [await api.log_in("ann") for _ in range(3)]
    assert (await api.client.delete("/api/session", headers=first)).status_code == 204
    assert (await api.client.get("/api/me", headers=first)).status_code == 401
    assert (await api.client.get("/api/me", headers=second)).status_code == 200
    assert (await api.client.delete("/api/session?everywhere=true", headers=second)).status_code == 204
    assert (await api.client.get("/api/me", headers=third)).status_code == 401


async def test_the_load_balancer_learns_who_is_asking(api: Api) -> None:
    assert (await api.client.get("/auth/check")).status_code == 401
    assert (await api.client.get("/auth/check", cookies={"tp_session": "made up"})).status_code == 401
    answer = await api.client.get("/auth/check", headers=await api.log_in("officer"))
    assert (answer.status_code, answer.headers["x-auth-user"]) == (200, "officer")
    assert answer.headers["x-auth-role"] == "compliance"


async def test_a_link_from_another_site_does_not_log_out_unasked(api: Api) -> None:
    await api.client.post("/login", data=FORM, headers=OURS)
    asked = await api.client.get("/logout", headers={"Sec-Fetch-Site": "cross-site"})
    assert "Log out?" in asked.text
    assert (await api.client.get("/api/me")).status_code == 200
    assert (await api.client.get("/logout", headers={"Sec-Fetch-Site": "same-origin"})).status_code == 303
    assert (await api.client.get("/api/me")).status_code == 401
