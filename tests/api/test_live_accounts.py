"""Accounts of real money through the API: who may connect, arm, disarm and close one, and what is never told again."""

from sqlalchemy import select

from tests.api.conftest import Api
from tests.api.test_configuration import audited
from trading_platform.accounts.vault import Vault
from trading_platform.identifiers import AccountId, GroupId, UserId
from trading_platform.storage.group import Account, Credential

G1, CAT = GroupId("g1"), UserId("cat")
KEYS = {"venue": "zerodha", "api_key": "kite_key_1", "api_secret": "kite_secret_1", "source_address": "203.0.113.7"}


def secrets_of(api: Api, account: str) -> dict[str, str]:
    with api.databases.group(G1) as session:
        found = Vault(api.databases.settings).open_all(session, CAT, AccountId(account))
        return {name: secret.get_secret_value() for name, secret in found.items()}


async def test_an_account_from_its_keys_to_its_end(api: Api) -> None:
    cat, ann = await api.log_in("cat"), await api.log_in("ann")
    made = await api.client.post("/api/accounts", json=KEYS, headers=cat)
    assert made.status_code == 201
    account = made.json()
    path = f"/api/accounts/{account['account_id']}"
    shown = (account["venue"], account["kind"], account["currency"], account["armed_at"])
    assert shown == ("zerodha", "live", "INR", None)
    assert "kite_secret_1" not in made.text
    assert "kite_key_1" not in made.text
    assert secrets_of(api, account["account_id"]) == {
        "api_key": "kite_key_1", "api_secret": "kite_secret_1", "source_address": "203.0.113.7",
    }  # fmt: skip
    with api.databases.group(G1) as session:
        rows = session.scalars(select(Credential).where(Credential.account_id == account["account_id"])).all()
        assert not any(b"kite_secret_1" in row.ciphertext for row in rows)
    assert (await api.client.post("/api/accounts", json=KEYS, headers=cat)).status_code == 409

    wrong = await api.client.put(f"{path}/armed", json={"confirmation": "yes"}, headers=cat)
    assert (wrong.status_code, wrong.json()["expected"]) == (422, f"'arm {account['account_id']}'")
    words = {"confirmation": f"arm {account['account_id']}"}
    assert (await api.client.put(f"{path}/armed", json=words, headers=ann)).status_code == 404, "it is not hers"
    armed = await api.client.put(f"{path}/armed", json=words, headers=cat)
    assert armed.json()["armed_at"] is not None
    assert (await api.client.delete(f"{path}/armed", headers=cat)).json()["armed_at"] is None
    assert (await api.client.put(f"{path}/armed", json=words, headers=cat)).status_code == 200
    assert (await api.client.delete(path, headers=cat)).status_code == 204
    with api.databases.group(G1) as session:
        row = session.get_one(Account, (CAT, account["account_id"]))
        assert (row.armed_at, row.closed_at is not None) == (None, True), "a closed account trades nothing"
    assert (await api.client.put(f"{path}/armed", json=words, headers=cat)).status_code == 404
    events = [
        row.event_type
        for kind in ("ACCOUNT_CONNECTED", "ACCOUNT_ARMED", "ACCOUNT_DISARMED", "ACCOUNT_CLOSED")
        for row in audited(api, "g1", kind, "cat")
    ]
    assert events == ["ACCOUNT_CONNECTED", *["ACCOUNT_ARMED"] * 2, *["ACCOUNT_DISARMED"] * 2, "ACCOUNT_CLOSED"]
    again = await api.client.post("/api/accounts", json=KEYS, headers=cat)
    assert (again.status_code, again.json()["account_id"]) == (201, account["account_id"])


async def test_what_is_no_account_is_refused_by_name(api: Api) -> None:
    cat = await api.log_in("cat")
    for change, field in (
        ({"venue": "nasdaq"}, "venue"), ({"api_key": "x"}, "api_key"), ({"source_address": "home"}, "source_address"),
        ({"password": "p"}, "password"),
    ):  # fmt: skip
        answer = await api.client.post("/api/accounts", json=KEYS | change, headers=cat)
        assert answer.status_code == 422
        assert field in answer.json()["detail"]
        assert "kite_secret_1" not in answer.text, "an error does not repeat a secret"


async def test_a_paper_account_cannot_be_armed(api: Api) -> None:
    cat = await api.log_in("cat")
    answer = await api.client.put("/api/accounts/acc_cat/armed", json={"confirmation": "arm acc_cat"}, headers=cat)
    assert answer.status_code == 404
