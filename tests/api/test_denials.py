"""What was not sent, and why: the user's own, newest first, each with the words of docs/denials.md."""

from datetime import timedelta
from decimal import Decimal

import pytest

from tests.api.conftest import START, Api
from trading_platform.execution.denial_codes import ABOUT, Denial, said
from trading_platform.identifiers import GroupId
from trading_platform.storage.group import Intent

MARKET_RULE = "PRICE_CIRCUIT: nearest=100 why=price 101 is above the limit of 100"
KEPT_BACK = [said(Denial.RATE_DAY, orders=51, limit=50), None, MARKET_RULE, said(Denial.HALT_ACTIVE, scope="user")]


@pytest.fixture
def kept_back(api: Api) -> Api:
    with api.databases.group(GroupId("g1")) as session:
        for user in ("cat", "dan"):
            for number, denial in enumerate(KEPT_BACK):
                key = f"{user}-{number}"
                session.merge(
                    Intent(
                        user_id=user, intent_id=key, decision_key=key, client_order_id=key, account_id=f"acc_{user}",
                        dataset_id="d1", strategy_id="barrier_long", version_id="v1", arm="champion", signal_id="s1",
                        purpose="entry", symbol="BTC/USDT", contract="BTC/USDT", side="buy", order_type="MARKET",
                        quantity=Decimal("0.010"), reference_price=Decimal(42_000), market_time=START, epoch=1,
                        state="DENIED" if denial else "DONE", denial=denial,
                        created_at=START + timedelta(minutes=number),
                    )
                )  # fmt: skip
    return api


async def test_denials_are_the_users_own_page_by_page_in_the_words_of_the_documentation(kept_back: Api) -> None:
    cat = await kept_back.log_in("cat")
    found, after = [], None
    while True:
        params = {"limit": "2", **({"after": after} if after else {})}
        page = (await kept_back.client.get("/api/denials", params=params, headers=cat)).json()
        found += page["items"]
        if (after := page["next"]) is None:
            break
    assert [(row["intent_id"], row["code"]) for row in found] == [
        ("cat-3", "HALT_ACTIVE"), ("cat-2", "PRICE_CIRCUIT"), ("cat-0", "RATE_DAY"),
    ]  # fmt: skip
    halted, by_rule, rate = found
    assert (halted["meaning"], halted["remedy"]) == (
        ABOUT[Denial.HALT_ACTIVE].meaning,
        ABOUT[Denial.HALT_ACTIVE].remedy,
    )
    assert (by_rule["meaning"], by_rule["denial"]) == (None, MARKET_RULE), "a market's rule explains itself"
    assert (rate["quantity"], rate["denial"]) == ("0.01", "RATE_DAY: orders=51 limit=50")


async def test_nobody_sees_what_was_kept_back_from_another(kept_back: Api) -> None:
    cat = await kept_back.log_in("cat")
    assert (await kept_back.client.get("/api/denials", params={"user_id": "dan"}, headers=cat)).status_code == 403
