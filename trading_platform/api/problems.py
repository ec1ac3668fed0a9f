"""Errors in one shape (RFC 9457, application/problem+json): what was wrong, what was expected, what to do."""

from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException

from trading_platform.accounts.limits import LimitsUnavailableError, TooManyError
from trading_platform.accounts.login import LoginRefusedError
from trading_platform.accounts.sessions import SessionsUnavailableError
from trading_platform.observability.traces import current_trace_id

log = structlog.get_logger(__name__)


class Problem(BaseModel):
    """Every error answer of this API."""

    type: str = Field("about:blank", description="Always about:blank: the title says what kind of problem it is.")
    title: str = Field(examples=["Confirmation does not match"])
    status: int = Field(examples=[422])
    detail: str = Field(description="What was wrong.", examples=["the confirmation was 'yes'"])
    expected: str | None = Field(None, description="What was expected.", examples=["'clear platform *'"])
    remedy: str | None = Field(None, description="What to do.", examples=["Type the text exactly and send it again."])
    trace_id: str | None = Field(None, description="Quote it when you report the problem: logs are found by it.")


class ProblemError(Exception):
    """Raised by routes; answered as a `Problem`."""

    def __init__(
        self, status: int, title: str, detail: str, *, expected: str | None = None, remedy: str | None = None
    ) -> None:
        super().__init__(detail)
        self.problem = Problem(title=title, status=status, detail=detail, expected=expected, remedy=remedy)


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": meaning}
    for status, meaning in {
        401: "Not logged in, or the session has ended.",
        403: "Logged in, but not allowed to do this.",
        404: "There is no such thing, or it is not yours.",
        422: "The request is not understood.",
        429: "Too many requests; Retry-After says when to come back.",
        503: "A server that this request needs is away; nothing was changed.",
    }.items()
}
"""For `responses=` of a router."""


def problem_response(problem: Problem, headers: dict[str, str] | None = None) -> Response:
    """The answer, with the trace id that finds it in the logs."""
    body = problem.model_copy(update={"trace_id": current_trace_id()}).model_dump(exclude_none=True)
    return Response(
        orjson.dumps(body), problem.status, headers={"Cache-Control": "no-store"} | (headers or {}),
        media_type="application/problem+json",
    )  # fmt: skip


def install(app: FastAPI) -> None:
    """Answer every exception that a route lets through."""

    @app.exception_handler(ProblemError)
    async def known(_: Request, error: ProblemError) -> Response:
        return problem_response(error.problem)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        wrong = "; ".join(
            f"{'.'.join(str(part) for part in found['loc'][1:]) or found['loc'][0]}: {found['msg']}"
            for found in error.errors()
        )
        return problem_response(
            Problem(
                title="Request not understood",
                status=422,
                detail=wrong,
                expected="the parameters and the body described in /openapi.json",
                remedy="Correct the fields named above.",
            )
        )

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        return problem_response(
            Problem(
                title=str(error.detail),
                status=error.status_code,
                detail=f"{request.method} {request.url.path}",
                expected="a path and a method listed in /openapi.json",
            ),
            dict(error.headers or {}),
        )

    @app.exception_handler(TooManyError)
    async def too_many(_: Request, error: TooManyError) -> Response:
        return problem_response(
            Problem(
                title="Too many requests",
                status=429,
                detail=str(error),
                expected=f"at most {error.limit}",
                remedy=f"Wait {error.retry_after} s, then try again.",
            ),
            {"Retry-After": str(error.retry_after)},
        )

    @app.exception_handler(LoginRefusedError)
    async def refused(_: Request, error: LoginRefusedError) -> Response:
        return problem_response(
            Problem(
                title="Log-in refused",
                status=401,
                detail=str(error),
                remedy="Check both. An admin can set a new password: trading-platform users passwd.",
            )
        )

    @app.exception_handler(SessionsUnavailableError)
    @app.exception_handler(LimitsUnavailableError)
    async def no_valkey(_: Request, error: Exception) -> Response:
        log.error("session_store_away", error=str(error))
        return problem_response(
            Problem(
                title="The session store is away",
                status=503,
                detail=f"{error}; nothing was changed",
                expected="Valkey (TP_REDIS_URL) to answer: without it nobody can be logged in and no change is counted",
                remedy="Try again in a few seconds. Engines go on trading; `trading-platform down` on the server stops them.",
            ),
            {"Retry-After": "5"},
        )

    @app.exception_handler(OperationalError)
    @app.exception_handler(InterfaceError)
    @app.exception_handler(PoolTimeoutError)
    async def no_database(_: Request, error: Exception) -> Response:
        log.error("database_away", error=str(error.__cause__ or error))
        return problem_response(
            Problem(
                title="The database is away",
                status=503,
                detail="PostgreSQL did not answer in time",
                remedy="Try again in a few seconds. Look first whether a change you asked for was made.",
            ),
            {"Retry-After": "5"},
        )

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> Response:
        log.error("request_failed", exc_info=error)
        return problem_response(
            Problem(
                title="Internal error",
                status=500,
                detail="the request could not be completed",
                remedy="Report the trace id. Look first whether a change you asked for was made.",
            )
        )
