"""Server-sent events for open pages: equity, positions, engine state, new signals."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import StreamingResponse

from trading_platform.accounts.sessions import Found, SessionsUnavailableError
from trading_platform.api.identity import Services, ServicesOf, found_session, token_of
from trading_platform.api.live import TooManyStreamsError, event
from trading_platform.api.problems import ERRORS, ProblemError

CHECK_SESSION_SECONDS = 60.0
router = APIRouter(prefix="/api", tags=["live"], responses={status: ERRORS[status] for status in (401, 422, 429, 503)})


@router.get(
    "/stream",
    summary="Live numbers",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Server-sent events: `snapshot` (equity, positions, engine state of the session's user), "
            "`signal` (one as /api/signals has it), `end` (the session is over).",
            "content": {"text/event-stream": {"example": 'event: snapshot\ndata: {"equity": "10012.5", …}\n\n'}},
        }
    },
)
async def stream(
    request: Request, services: ServicesOf, found: Annotated[Found, Depends(found_session)]
) -> StreamingResponse:
    """For EventSource in a browser. It ends with the session; a browser reconnects by itself."""
    try:
        services.live.require_room(found.user)
    except TooManyStreamsError as error:
        raise ProblemError(429, "Too many streams", str(error), remedy="Close a page, then try again.") from None
    return StreamingResponse(
        _until_session_ends(services, found, token_of(request) or ""),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _until_session_ends(services: Services, found: Found, token: str) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    check_at = loop.time() + CHECK_SESSION_SECONDS
    async for chunk in services.live.stream(found.user):
        if loop.time() >= check_at:
            check_at = loop.time() + CHECK_SESSION_SECONDS
            with suppress(SessionsUnavailableError):
                if await services.sessions.find(token) is None:
                    yield event("end", b"{}")
                    return
        yield chunk
