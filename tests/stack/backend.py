"""A server behind the load balancer: says who it is and what it was asked. `python backend.py PORT FOLDER`."""

import os
import sys
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

PORT, FOLDER = int(sys.argv[1]), Path(sys.argv[2])


async def auth_check(request: Request) -> Response:
    if request.url.query or request.cookies.get("session") != "good":
        return Response(status_code=401)
    return Response(headers={"X-Auth-User": "u1", "X-Auth-Role": "trader"})


async def breaks_off(request: Request) -> Response:
    """Notes that it was called, and breaks the connection off without an answer, as a killed process does."""
    with (FOLDER / f"{request.method}.calls").open("a") as calls:
        calls.write(f"{PORT}\n")
    if request.method == "GET" and len((FOLDER / "GET.calls").read_text().split()) > 1:
        return JSONResponse({"port": PORT})
    os._exit(1)


async def anything(request: Request) -> Response:
    body = await request.body()
    return JSONResponse({"port": PORT, "path": request.url.path, "headers": dict(request.headers), "bytes": len(body)})


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(f"{socket.headers['x-auth-user']} {await socket.receive_text()}")
    await socket.close()


app = Starlette(
    routes=[
        Route("/auth/check", auth_check),
        Route("/api/breaks-off", breaks_off, methods=["GET", "POST"]),
        WebSocketRoute("/app/_stcore/stream", echo),
        Route("/{path:path}", anything, methods=["GET", "POST"]),
    ]
)
uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="error")
