"""Real money: connect an account, arm it by typed words, disarm it, close it. Only its owner may, and keys never come back."""

from ipaddress import ip_address
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from trading_platform.accounts import live_accounts
from trading_platform.accounts.vault import Vault
from trading_platform.api.identity import ServicesOf, Writer
from trading_platform.api.problems import ERRORS, ProblemError
from trading_platform.api.schemas import AccountOut
from trading_platform.storage.group import Account

router = APIRouter(
    prefix="/api/accounts",
    tags=["live accounts"],
    responses={status: ERRORS[status] for status in (401, 403, 404, 422, 429, 503)},
)
KeyText = Field(min_length=4, max_length=200)


class ConnectIn(BaseModel):
    """`source_address`: the address on the broker's list, where this machine has several."""

    model_config = ConfigDict(extra="forbid")

    venue: Literal["binance", "zerodha"]
    api_key: SecretStr = KeyText
    api_secret: SecretStr = KeyText
    source_address: str | None = Field(None, examples=["203.0.113.7"])

    @field_validator("source_address")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        return str(ip_address(value)) if value else None


class ArmIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    confirmation: str = Field(max_length=200, description="`arm <account id>`", examples=["arm 3f9c2b71aa04"])


@router.post("", status_code=201, summary="Connect a live account", responses={409: ERRORS[422]})
async def connect(body: ConnectIn, user: Writer, services: ServicesOf) -> AccountOut:
    """Keeps the keys sealed. Nothing is traded until the account is armed."""
    vault = Vault(services.databases.settings)
    keys = live_accounts.Keys(body.api_key, body.api_secret, body.source_address)
    async with services.databases.group_async(user.group_id) as session:
        try:
            account_id = await live_accounts.connect(session, vault, user.user_id, body.venue, keys, actor=user.user_id)
        except live_accounts.AlreadyConnectedError as error:
            raise ProblemError(
                409, "Already connected", str(error), remedy="Use that account, or close it first."
            ) from None
        return AccountOut.model_validate(await session.get_one(Account, (user.user_id, account_id)))


@router.put("/{account_id}/armed", summary="Let an account trade real money")
async def arm(account_id: str, body: ArmIn, user: Writer, services: ServicesOf) -> AccountOut:
    async with services.databases.group_async(user.group_id) as session:
        try:
            account = await live_accounts.arm(
                session, user.user_id, account_id, typed=body.confirmation, actor=user.user_id
            )
        except live_accounts.NotYoursError as error:
            raise _no_such(error) from None
        except live_accounts.WrongWordsError as error:
            raise ProblemError(
                422, "Confirmation does not match", f"the confirmation was {body.confirmation!r}",
                expected=repr(error.expected), remedy="Type the text exactly and send it again.",
            ) from None  # fmt: skip
        await session.flush()
        return AccountOut.model_validate(account)


@router.delete("/{account_id}/armed", summary="Stop an account from trading real money")
async def disarm(account_id: str, user: Writer, services: ServicesOf) -> AccountOut:
    """At once and without confirmation; positions stay as they are."""
    async with services.databases.group_async(user.group_id) as session:
        try:
            account = await live_accounts.disarm(session, user.user_id, account_id, actor=user.user_id)
        except live_accounts.NotYoursError as error:
            raise _no_such(error) from None
        await session.flush()
        return AccountOut.model_validate(account)


@router.delete("/{account_id}", status_code=204, summary="Disconnect an account")
async def close(account_id: str, user: Writer, services: ServicesOf) -> None:
    """It is disarmed and no longer shown; its records stay for as long as the law asks."""
    async with services.databases.group_async(user.group_id) as session:
        try:
            await live_accounts.close(session, user.user_id, account_id, actor=user.user_id)
        except live_accounts.NotYoursError as error:
            raise _no_such(error) from None


def _no_such(error: live_accounts.NotYoursError) -> ProblemError:
    return ProblemError(404, "No such account", str(error), remedy="GET /api/accounts lists yours.")
