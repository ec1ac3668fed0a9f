"""Logging in and out: the page for people, JSON for programs, and the question the load balancer asks."""

from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import parse_qs, quote, urlsplit

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from trading_platform.accounts.limits import LimitsUnavailableError, TooManyError
from trading_platform.accounts.login import LoginRefusedError
from trading_platform.accounts.sessions import LIFETIME, Found, SessionsUnavailableError
from trading_platform.api import pages
from trading_platform.api.identity import (
    COOKIE,
    Reader,
    ServicesOf,
    client_address,
    found_session,
    is_https,
    require_own_pages,
    token_of,
)
from trading_platform.api.problems import ERRORS, ProblemError
from trading_platform.api.schemas import LogInRequest, Me, SessionCreated

HOME = "/app/"
MAX_FORM_BYTES = 8192
router = APIRouter(tags=["log-in"], responses={status: ERRORS[status] for status in (401, 422, 429, 503)})
Next = Annotated[str, Query(alias="next", description="Where to go afterwards; a path of this site.")]


@router.get("/login", response_class=HTMLResponse, include_in_schema=False)
async def login_page(next_path: Next = HOME) -> Response:
    return _page(local_path(next_path))


@router.post("/login", response_class=HTMLResponse, include_in_schema=False)
async def log_in_by_form(request: Request, services: ServicesOf) -> Response:
    form = await _form(request)
    next_path = local_path(form.get("next", HOME))
    email = form.get("email", "")
    try:
        require_own_pages(request)
        token = await services.login.log_in(
            email, form.get("password", ""), address=client_address(request), agent=request.headers.get("user-agent")
        )
    except ProblemError as error:
        return _page(next_path, f"{error.problem.detail}. Open this page directly and try again.", email, status=403)
    except LoginRefusedError:
        return _page(next_path, "E-mail and password do not match.", email, status=401)
    except TooManyError as error:
        minutes = -(-error.retry_after // 60)
        wait = f"Too many attempts. Try again in {minutes} minute{'s' if minutes > 1 else ''}."
        return _page(next_path, wait, email, status=429, headers={"Retry-After": str(error.retry_after)})
    except (SessionsUnavailableError, LimitsUnavailableError):
        return _page(next_path, "The session store is away. Try again in a few seconds.", email, status=503)
    response = RedirectResponse(next_path, 303)
    response.set_cookie(
        COOKIE, token, max_age=int(LIFETIME.total_seconds()), path="/", secure=is_https(request), httponly=True,
        samesite="lax",
    )  # fmt: skip
    return response


@router.get("/logout", include_in_schema=False)
async def logout_page(request: Request, services: ServicesOf) -> Response:
    """A link on our own pages logs out at once; one from elsewhere is asked about."""
    if request.headers.get("sec-fetch-site", "cross-site") in ("same-origin", "none"):
        return await _logged_out(request, services)
    return pages.page("logout.html")


@router.post("/logout", include_in_schema=False)
async def log_out_by_form(request: Request, services: ServicesOf) -> Response:
    require_own_pages(request)
    return await _logged_out(request, services)


@router.get("/auth/check", include_in_schema=False)
async def auth_check(found: Annotated[Found, Depends(found_session)]) -> Response:
    """For the load balancer: 200 with who is asking, or 401."""
    user = found.user
    return Response(
        headers={"X-Auth-User": user.user_id, "X-Auth-Role": user.role, "X-Auth-Group": user.group_id},
    )


@router.post("/api/session", status_code=201, summary="Log in")
async def start_session(body: LogInRequest, request: Request, services: ServicesOf) -> SessionCreated:
    """For programs. Five failed attempts in five minutes make a pause."""
    token = await services.login.log_in(
        body.email, body.password, address=client_address(request), agent=request.headers.get("user-agent")
    )
    return SessionCreated(token=token, expires_at=datetime.now(UTC) + LIFETIME)


@router.delete("/api/session", status_code=204, summary="Log out")
async def end_session(
    request: Request,
    services: ServicesOf,
    found: Annotated[Found, Depends(found_session)],
    everywhere: Annotated[bool, Query(description="End all sessions of this user.")] = False,
) -> None:
    require_own_pages(request)
    if everywhere:
        await services.sessions.end_all(found.user.user_id)
    else:
        await services.sessions.end(token_of(request) or "")


@router.get("/api/me", summary="Who am I")
async def me(user: Reader) -> Me:
    return Me(
        user_id=user.user_id, email=user.email, display_name=user.display_name, role=user.role,
        group_id=user.group_id, expires_at=datetime.fromtimestamp(user.expires_at, UTC),
    )  # fmt: skip


def local_path(text: str) -> str:
    """The path if it is one of this site, else the start page: a log-in must not send people elsewhere.

    >>> local_path("/dagster/runs?x=1"), local_path("//evil.example"), local_path("/\\\\evil.example")
    ('/dagster/runs?x=1', '/app/', '/app/')
    """
    parts = urlsplit(text) if text.isprintable() and "\\" not in text else None
    if parts is None or parts.scheme or parts.netloc or not text.startswith("/") or text.startswith("//"):
        return HOME
    return quote(text, safe="/?=&%#:+,;@~!$'()*-._")


async def _form(request: Request) -> dict[str, str]:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            raise ProblemError(413, "Form too large", f"more than {MAX_FORM_BYTES} bytes came with the form")
    return {name: values[0] for name, values in parse_qs(body.decode(errors="replace"), keep_blank_values=True).items()}


async def _logged_out(request: Request, services: ServicesOf) -> Response:
    if token := request.cookies.get(COOKIE):
        await services.sessions.end(token)
    response = RedirectResponse("/login", 303)
    response.delete_cookie(COOKIE, path="/", secure=is_https(request), httponly=True, samesite="lax")
    return response


def _page(
    next_path: str, error: str = "", email: str = "", *, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    return pages.page("login.html", {"next": next_path, "error": error, "email": email}, status=status, headers=headers)
