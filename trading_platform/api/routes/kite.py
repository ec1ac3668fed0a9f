"""Zerodha's half of a log-in that happens in the browser, and its postbacks.

    /api/kite/login?account=…  ->  Zerodha's own page  ->  /api/kite/callback?request_token=…&state=…  ->  /app/

The callback address is what is registered for the app on the broker's developer console. It wants the same user's session
that began the log-in, and a `state` that was signed here: a request token sent to somebody else's browser is worth nothing.
"""

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Literal

import orjson
from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, Field

from trading_platform.accounts.limits import READS
from trading_platform.accounts.sessions import SessionUser
from trading_platform.accounts.vault import Vault, VaultError
from trading_platform.api.identity import Reader, Services, ServicesOf, Writer, client_address
from trading_platform.api.problems import ERRORS, ProblemError
from trading_platform.compliance.audit import record
from trading_platform.identifiers import GroupId
from trading_platform.storage.databases import Databases
from trading_platform.venues.zerodha import vaulted
from trading_platform.venues.zerodha.login import (
    KiteSession,
    LoginRefusedError,
    account_in_state,
    close_session,
    login_url,
    login_wanted,
    open_session,
    postback_is_genuine,
    signed_state,
    state_is_ours,
)
from trading_platform.venues.zerodha.transport import KiteTransport
from trading_platform.venues.zerodha.vaulted import KiteAccount, KiteKeys, NoAccountError

HOME = "/app/accounts"
LARGEST_POSTBACK = 1 << 16
SHOWN_OF_POSTBACK = ("status", "exchange", "tradingsymbol", "filled_quantity", "order_timestamp")
router = APIRouter(
    prefix="/api/kite",
    tags=["zerodha"],
    responses={status: ERRORS[status] for status in (401, 403, 404, 422, 429, 503)},
)


@router.get("/login", include_in_schema=False)
async def login(
    user: Reader, services: ServicesOf, account: Annotated[str, Query(description="One of your accounts at Zerodha.")]
) -> RedirectResponse:
    found, keys = await _own(services, user, account)
    state = signed_state(found.account_id, user.user_id, keys.api_secret.get_secret_value(), datetime.now(UTC))
    page = vaulted.login_page_of(services.databases.settings, found)
    return RedirectResponse(login_url(keys.api_key, state, page), 303)


class KiteSessionOut(BaseModel):
    """How one of your accounts at Zerodha stands with its daily log-in."""

    account_id: str
    kind: Literal["live", "sandbox"]
    armed: bool
    logged_in_until: datetime | None = Field(description="End of today's session; null where there is none.")
    wanted_by: datetime | None = Field(
        description="When trading begins that needs a log-in; null where none is needed."
    )


@router.get("/sessions", summary="Which of your accounts at Zerodha are logged in")
async def sessions(user: Reader, services: ServicesOf) -> list[KiteSessionOut]:
    return await asyncio.to_thread(_sessions, services.databases, user)


def _sessions(databases: Databases, user: SessionUser) -> list[KiteSessionOut]:
    now, vault, found = datetime.now(UTC), Vault(databases.settings), []
    for account in vaulted.accounts_in(databases, user.group_id):
        if account.user_id != user.user_id:
            continue
        try:
            session = vaulted.keys_of(databases, vault, account, now).session
        except NoAccountError:
            continue
        found.append(
            KiteSessionOut(
                account_id=account.account_id, kind="live" if account.live else "sandbox", armed=account.armed,
                logged_in_until=session.expires_at if session else None,
                wanted_by=login_wanted(session, now) if account.live else None,
            )
        )  # fmt: skip
    return found


@router.get("/callback", include_in_schema=False)
async def callback(
    user: Reader,
    services: ServicesOf,
    request_token: Annotated[str, Query(max_length=200)] = "",
    state: Annotated[str, Query(max_length=500)] = "",
) -> RedirectResponse:
    """Exchanges the request token, which is good once, and puts the session into the vault."""
    account = account_in_state(state)
    if not request_token or account is None:
        raise _not_this_login("it has no request_token or no state")
    found, keys = await _own(services, user, account)
    secret = keys.api_secret.get_secret_value()
    if not state_is_ours(state, found.account_id, user.user_id, secret, datetime.now(UTC)):
        raise _not_this_login("its state was not made for you and this account, or is older than ten minutes")
    session = await _exchange(services.databases, found, keys, request_token)
    vault = Vault(services.databases.settings)
    await asyncio.to_thread(vaulted.keep, services.databases, vault, found, session, actor=user.user_id)
    return RedirectResponse(HOME, 303)


@router.delete("/session", status_code=204, summary="Log an account out at Zerodha")
async def logout(user: Writer, services: ServicesOf, account: Annotated[str, Query()]) -> None:
    found, keys = await _own(services, user, account)
    if keys.access_token is not None:
        transport = vaulted.transport_of(services.databases.settings, found, keys)
        try:
            await close_session(transport, keys.access_token.get_secret_value())
        finally:
            await transport.close()
    await asyncio.to_thread(vaulted.forget, services.databases, found, actor=user.user_id, why="logged out")


@router.post("/postback/{group_id}/{account_id}", status_code=204, summary="Order updates that Zerodha posts")
async def postback(group_id: str, account_id: str, request: Request, services: ServicesOf) -> None:
    """For the broker, by checksum. What it says is a reason to read the order, never a record of it."""
    await services.limiter.count_read(READS, "postback", client_address(request))
    body = await _small_body(request)
    try:
        data = orjson.loads(body)
        order_id, stamp, checksum = (str(data[name]) for name in ("order_id", "order_timestamp", "checksum"))
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise ProblemError(
            422, "Not a postback", "the body is no JSON object with order_id, order_timestamp and checksum"
        ) from None
    found = await _named(services.databases, group_id, account_id)
    if found is None or not postback_is_genuine(order_id, stamp, checksum, found[1].api_secret.get_secret_value()):
        raise ProblemError(403, "Not genuine", "the checksum is not that of this account's app; nothing was recorded")
    account = found[0]
    seen = {name: data.get(name) for name in SHOWN_OF_POSTBACK}
    async with services.databases.group_async(account.group_id) as session:
        record(
            session, user_id=account.user_id, account_id=account.account_id, actor="zerodha postback",
            event_type="POSTBACK", venue_order_id=order_id, tag=data.get("tag"), status_venue=str(data.get("status")),
            detail={"hint": seen},
        )  # fmt: skip


async def _exchange(databases: Databases, account: KiteAccount, keys: KiteKeys, request_token: str) -> KiteSession:
    transport = KiteTransport(keys.api_key, None, root=vaulted.root_of(databases.settings, account))
    try:
        return await open_session(transport, request_token, keys.api_secret.get_secret_value())
    except LoginRefusedError as error:
        raise ProblemError(
            403, "Zerodha refused the log-in", str(error), expected="a request token that is minutes old and was not used",
            remedy=f"{error.meaning.remedy}. Then begin again at /api/kite/login?account={account.account_id}",
        ) from None  # fmt: skip
    finally:
        await transport.close()


async def _own(services: Services, user: SessionUser, account_id: str) -> tuple[KiteAccount, KiteKeys]:
    """One of the user's own accounts with its keys; 404 for anybody else's too."""
    found = await _named(services.databases, user.group_id, account_id)
    if found is None or found[0].user_id != user.user_id:
        raise ProblemError(
            404, "No such account", f"{account_id!r} is none of your accounts at Zerodha, or has no API key yet"
        )
    return found


async def _named(databases: Databases, group_id: str, account_id: str) -> tuple[KiteAccount, KiteKeys] | None:
    def look() -> tuple[KiteAccount, KiteKeys] | None:
        if group_id not in databases.group_ids():
            return None
        account = vaulted.account_in(databases, GroupId(group_id), account_id)
        return None if account is None else (account, vaulted.keys_of(databases, Vault(databases.settings), account))

    try:
        return await asyncio.to_thread(look)
    except NoAccountError:
        return None
    except VaultError as error:
        raise ProblemError(503, "The vault does not open", str(error)) from None


async def _small_body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_POSTBACK:
            raise ProblemError(422, "Too large", f"a postback has at most {LARGEST_POSTBACK} bytes")
    return body


def _not_this_login(why: str) -> ProblemError:
    return ProblemError(
        403, "Not this log-in", f"the address that the browser came back to is not of a log-in begun here: {why}",
        expected="the redirect of a log-in that you began here within the last ten minutes",
        remedy="Begin again at /api/kite/login?account=<your account>.",
    )  # fmt: skip
