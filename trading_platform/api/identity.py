"""Who is asking, and may they: the dependencies that routes declare.

`Reader` is a logged-in user within the read limit. `Writer` is one whose session Valkey has confirmed, whose request
comes from our own pages (or carries a bearer token), within the write limit. `Subject` is the user whose rows are
wanted: always the session's own, unless compliance or an admin names another.
"""

import ipaddress
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Query, Request
from opentelemetry import trace

from trading_platform.accounts.limits import READS, WRITES, Limiter
from trading_platform.accounts.login import Login
from trading_platform.accounts.sessions import Found, Sessions, SessionUser
from trading_platform.api import queries
from trading_platform.api.live import LiveHub
from trading_platform.api.problems import ProblemError
from trading_platform.identifiers import GroupId, UserId
from trading_platform.storage.databases import Databases

COOKIE = "tp_session"


@dataclass(frozen=True)
class Services:
    """What the routes work with; one of each a process."""

    databases: Databases
    sessions: Sessions
    limiter: Limiter
    login: Login
    live: LiveHub


@dataclass(frozen=True)
class SubjectUser:
    """Whose rows are wanted, and where they are."""

    user_id: UserId
    group_id: GroupId


def services_of(request: Request) -> Services:
    """What `create_app` put there."""
    found: Services = request.app.state.services
    return found


async def _services(request: Request) -> Services:
    return services_of(request)


# Dependencies here call each other as functions: a tree of them costs FastAPI more than the session check itself.
ServicesOf = Annotated[Services, Depends(_services)]


def token_of(request: Request) -> str | None:
    """The session token: of the Authorization header where there is one, else of the cookie."""
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and bearer:
        return bearer.strip()
    return request.cookies.get(COOKIE)


async def found_session(request: Request) -> Found:
    """The caller's valid session, or 401."""
    token = token_of(request)
    found = await services_of(request).sessions.find(token) if token else None
    if found is None:
        raise ProblemError(
            401, "Not logged in", "no valid session came with the request" if token is None else "the session has ended",
            expected=f"the cookie {COOKIE} or the header `Authorization: Bearer <token>`",
            remedy="Log in at /login, or with POST /api/session.",
        )  # fmt: skip
    request.state.user_id = found.user.user_id
    trace.get_current_span().set_attribute("user.id", found.user.user_id)
    return found


async def reader(request: Request) -> SessionUser:
    """A logged-in user who may read."""
    found = await found_session(request)
    await services_of(request).limiter.count_read(READS, found.user.user_id)
    return found.user


async def writer(request: Request) -> SessionUser:
    """A logged-in user who may change something."""
    found = await found_session(request)
    require_own_pages(request)
    if not found.confirmed:
        raise ProblemError(
            503, "The session store is away", "the session cannot be confirmed, so nothing was changed",
            expected="Valkey (TP_REDIS_URL) to answer", remedy="Try again in a few seconds.",
        )  # fmt: skip
    await services_of(request).limiter.count(WRITES, found.user.user_id)
    return found.user


Reader = Annotated[SessionUser, Depends(reader)]
Writer = Annotated[SessionUser, Depends(writer)]


async def subject(
    request: Request,
    user_id: Annotated[
        str | None, Query(description="Another user's id; for compliance and admins only. Default: yourself.")
    ] = None,
) -> SubjectUser:
    """The session's user, or the one that staff names."""
    return await resolve_subject(services_of(request), await reader(request), user_id)


Subject = Annotated[SubjectUser, Depends(subject)]


async def resolve_subject(services: Services, user: SessionUser, user_id: str | None) -> SubjectUser:
    """Whose rows `user` gets when asking for `user_id`'s. 403 where they are none of the user's business."""
    if user_id is None or user_id == user.user_id:
        return SubjectUser(user.user_id, user.group_id)
    if not user.is_staff:
        raise ProblemError(
            403, "Not yours", f"role {user.role} may see its own rows only",
            expected="no user_id, or your own", remedy="Ask compliance or an admin.",
        )  # fmt: skip
    async with services.databases.control_async() as session:
        group_id = await session.scalar(queries.group_of_user(UserId(user_id)))
    if group_id is None:
        raise ProblemError(404, "No such user", f"there is no user {user_id!r}")
    return SubjectUser(UserId(user_id), GroupId(group_id))


def require_own_pages(request: Request) -> None:
    """Refuse a write that another site's page made the browser send (cross-site request forgery).

    A bearer token is never sent by a browser on its own, so it needs no further proof. With a cookie the browser's
    own word counts: Sec-Fetch-Site, else the Origin.
    """
    if request.headers.get("authorization", "").lower().startswith("bearer "):
        return
    if (site := request.headers.get("sec-fetch-site")) is not None:
        allowed = site == "same-origin"
    else:
        origin = urlsplit(request.headers.get("origin", "")).netloc
        allowed = bool(origin) and origin == request.headers.get("host")
    if not allowed:
        raise ProblemError(
            403, "Request from elsewhere", "the request carries a log-in cookie but does not come from our own pages",
            expected="an Origin header equal to this host, or `Authorization: Bearer <token>` instead of the cookie",
            remedy="Programs log in with POST /api/session and send the token as a bearer token.",
        )  # fmt: skip


def client_address(request: Request) -> str:
    """The client's address; what the load balancer says counts only when a load balancer is asking."""
    peer = request.client.host if request.client else "unknown"
    forwarded = request.headers.get("x-forwarded-for")
    if forwarded and _is_near(peer):
        return forwarded.rpartition(",")[2].strip()
    return peer


def is_https(request: Request) -> bool:
    """Whether the browser's connection is encrypted, to the load balancer or to us."""
    return request.headers.get("x-forwarded-proto", request.url.scheme) == "https"


def _is_near(peer: str) -> bool:
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return False
    return address.is_loopback or address.is_private
