"""A log-in at Zerodha through the browser, and postbacks: what is believed, what is kept, and who may do it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import delete, select

from tests.api.conftest import Api
from tests.venues.zerodha.replayed import Replayed, error, replay
from trading_platform.accounts.vault import Vault
from trading_platform.identifiers import AccountId, GroupId, UserId
from trading_platform.storage.group import Account, AuditRow, Credential
from trading_platform.venues.zerodha import vaulted

G1, ANN = GroupId("g1"), UserId("ann")
ACCOUNT = AccountId("kite_ann")
STAMP = "2022-03-03 09:24:25"


@pytest.fixture
async def broker(api: Api, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Replayed]:
    """A live account of ann's with keys; the broker's address is a server of ours."""
    async with replay() as server:
        vault = Vault(api.databases.settings)
        with api.databases.group(G1) as session:
            session.add(Account(user_id=ANN, account_id=ACCOUNT, venue="zerodha", kind="live", currency="INR"))
            for name, secret in (("api_key", "the_key"), ("api_secret", "secret_z")):
                session.add(vault.seal(ANN, ACCOUNT, name, secret))
        monkeypatch.setattr(vaulted, "ROOT", server.root)
        yield server
        with api.databases.group(G1) as session:
            session.execute(delete(Credential).where(Credential.account_id == ACCOUNT))
            session.execute(delete(Account).where(Account.account_id == ACCOUNT))


async def state_of(api: Api, headers: dict[str, str]) -> str:
    began = await api.client.get(f"/api/kite/login?account={ACCOUNT}", headers=headers)
    assert began.status_code == 303
    address = urlsplit(began.headers["location"])
    assert (address.netloc, address.path) == ("kite.zerodha.com", "/connect/login")
    query = parse_qs(address.query)
    assert (query["v"], query["api_key"]) == (["3"], ["the_key"])
    return parse_qs(query["redirect_params"][0])["state"][0]


def events(api: Api, kind: str) -> list[AuditRow]:
    with api.databases.group(G1) as session:
        found = select(AuditRow).where(AuditRow.account_id == ACCOUNT, AuditRow.event_type == kind)
        return list(session.scalars(found.order_by(AuditRow.seq)))


async def test_a_log_in_from_end_to_end(api: Api, broker: Replayed) -> None:
    headers = await api.log_in("ann")
    state = await state_of(api, headers)
    query = {"request_token": "req", "state": state, "status": "success", "action": "login"}
    done = await api.client.get("/api/kite/callback", params=query, headers=headers)
    assert (done.status_code, done.headers["location"]) == (303, "/app/accounts")
    assert broker.asked[-1].form["checksum"] == sha256(b"the_keyreqsecret_z").hexdigest()
    account = vaulted.account_of(api.databases, ACCOUNT)
    vault = Vault(api.databases.settings)
    logged_in = datetime(2021, 1, 1, 10, 45, 14, tzinfo=UTC)
    kept = vaulted.keys_of(api.databases, vault, account, now=logged_in + timedelta(minutes=1))
    assert kept.session is not None
    assert kept.access_token is not None
    with api.databases.group(G1) as session:
        rows = session.scalars(select(Credential).where(Credential.account_id == ACCOUNT)).all()
        assert {row.name for row in rows} == {"api_key", "api_secret", "access_token", "kite_session"}
        assert not any(kept.access_token.get_secret_value().encode() in row.ciphertext for row in rows)
    (event,) = events(api, "SESSION_CREATED")[-1:]
    assert event.detail["client_id"] == "XX**00"
    assert kept.access_token.get_secret_value() not in str(event.detail)
    over = vaulted.keys_of(api.databases, vault, account, now=datetime(2026, 1, 1, tzinfo=UTC))
    assert (over.session, over.access_token) == (None, None), "a session of another day is none"


async def test_a_token_that_was_used_is_refused_with_the_way_on(api: Api, broker: Replayed) -> None:
    headers = await api.log_in("ann")
    broker.answers["POST", "/session/token"] = error(403, "TokenException", "Token is invalid or has expired.")
    query = {"request_token": "req", "state": await state_of(api, headers)}
    refused = await api.client.get("/api/kite/callback", params=query, headers=headers)
    assert refused.status_code == 403
    assert "LOGIN_TOKEN_USED" in refused.json()["detail"]
    assert "/api/kite/login" in refused.json()["remedy"]


async def test_only_who_began_it_may_end_it(api: Api, broker: Replayed) -> None:
    ann, cat = await api.log_in("ann"), await api.log_in("cat")
    state = await state_of(api, ann)
    callback = "/api/kite/callback"
    assert (await api.client.get(callback, params={"request_token": "r", "state": state})).status_code == 401
    theirs = await api.client.get(callback, params={"request_token": "r", "state": state}, headers=cat)
    assert theirs.status_code == 404, "cat learns nothing about ann's account"
    for bad in ("", "x", state[:-8] + "AAAAAAAA", "%00"):
        told = await api.client.get(callback, params={"request_token": "r", "state": bad}, headers=ann)
        assert told.status_code in (403, 404)
    assert (await api.client.get(callback, params={"state": state}, headers=ann)).status_code == 403
    assert broker.asked == [], "nothing was sent to the broker"
    assert (await api.client.get(f"/api/kite/login?account={ACCOUNT}", headers=cat)).status_code == 404
    assert (await api.client.get("/api/kite/login?account=acc_ann", headers=ann)).status_code == 404, "not at Zerodha"


async def test_logging_out_ends_the_session_here_and_there(api: Api, broker: Replayed) -> None:
    headers = await api.log_in("ann")
    with api.databases.group(G1) as session:
        session.merge(Vault(api.databases.settings).seal(ANN, ACCOUNT, "access_token", "tok"))
    done = await api.client.delete(f"/api/kite/session?account={ACCOUNT}", headers=headers)
    assert done.status_code == 204
    assert (broker.asked[-1].method, broker.asked[-1].path) == ("DELETE", "/session/token")
    with api.databases.group(G1) as session:
        names = set(session.scalars(select(Credential.name).where(Credential.account_id == ACCOUNT)))
    assert names == {"api_key", "api_secret"}
    assert events(api, "SESSION_ENDED")


async def test_a_postback_is_a_hint_and_wants_its_checksum(api: Api, broker: Replayed) -> None:
    address = f"/api/kite/postback/g1/{ACCOUNT}"
    checksum = "687ea5a6b4931040acfa6cf8c26a87efb451119f746070ffe52b4b42ed40cc11"  # the specification's vector
    body = {
        "order_id": "220303000308932", "order_timestamp": STAMP, "checksum": checksum, "status": "COMPLETE",
        "filled_quantity": 1_000_000, "tag": "TPX",
    }  # fmt: skip
    before = len(events(api, "POSTBACK"))
    assert (await api.client.post(address, json=body)).status_code == 204
    # The checksum does not cover the quantity: what came is written down as a hint, and no order changes by it.
    found = events(api, "POSTBACK")
    assert (len(found), found[-1].venue_order_id, found[-1].filled_quantity) == (before + 1, "220303000308932", None)
    assert found[-1].detail["hint"]["filled_quantity"] == 1_000_000
    for wrong in (body | {"checksum": "0" * 64}, body | {"order_id": "1"}, body | {"checksum": "ü"}):
        assert (await api.client.post(address, json=wrong)).status_code == 403
    for other in (f"/api/kite/postback/g2/{ACCOUNT}", "/api/kite/postback/none/x", "/api/kite/postback/g1/acc_ann"):
        assert (await api.client.post(other, json=body)).status_code == 403
    for junk in (b"", b"{", b"[]", b"null", b'{"order_id": 1}', b"\xff"):
        assert (await api.client.post(address, content=junk)).status_code == 422
    assert (await api.client.post(address, content=b"x" * 70_000)).status_code == 422
    assert len(events(api, "POSTBACK")) == before + 1
