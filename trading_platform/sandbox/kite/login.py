"""The log-in page, the exchange of its request token for a session, and the end of it."""

import html
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode
from zoneinfo import ZoneInfo

from aiohttp import web

from trading_platform.sandbox.exchange import Exchange
from trading_platform.sandbox.kite.door import envelope, refusal
from trading_platform.sandbox.kite.errors import KiteError
from trading_platform.sandbox.kite.portfolio import profile_of
from trading_platform.sandbox.kite.sessions import Sessions

IST = ZoneInfo("Asia/Kolkata")
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Sandbox log-in</title>
<style>body{{font:16px system-ui;max-width:26rem;margin:12vh auto;padding:0 1rem}}button{{font:inherit;padding:.6rem 1.2rem}}
code{{background:#f3f4f6;padding:.1rem .3rem}}</style>
<h1>Sandbox broker</h1><p>This page stands where the broker asks for a password and a second factor. Nothing of the kind is
needed here: whoever can open it may log <code>{key}</code> in.</p>
<form method="post"><button type="submit">Log in</button></form></html>"""


@dataclass
class Login:
    """Routes without a session. `redirect`: where the app was registered to be called back; the request may name another."""

    exchange: Exchange
    sessions: Sessions
    redirect: str

    def routes(self) -> Iterator[Any]:
        yield web.get("/connect/login", self.page)
        yield web.post("/connect/login", self.log_in)
        yield web.post("/session/token", self.open)
        yield web.delete("/session/token", self.close)

    async def page(self, request: web.Request) -> web.Response:
        key = request.query.get("api_key", "")
        if key not in self.exchange.books.by_key:
            return web.Response(status=400, text="Invalid api_key: no account of the sandbox has it.")
        return web.Response(text=PAGE.format(key=html.escape(key)), content_type="text/html")

    async def log_in(self, request: web.Request) -> web.Response:
        """Back to the app, with a request token and whatever it had given us to carry."""
        try:
            token = self.sessions.request_token(request.query.get("api_key", ""))
        except KiteError as error:
            return refusal(error)
        carried = dict(parse_qsl(request.query.get("redirect_params", "")))
        query = urlencode({"action": "login", "status": "success", "request_token": token, **carried})
        raise web.HTTPFound(f"{self.redirect}{'&' if '?' in self.redirect else '?'}{query}")

    async def open(self, request: web.Request) -> web.Response:
        form = await request.post()
        key, token, checksum = (str(form.get(name, "")) for name in ("api_key", "request_token", "checksum"))
        try:
            account, access_token, at = self.sessions.open(key, token, checksum)
        except KiteError as error:
            return refusal(error)
        await self.exchange.durable()
        return envelope(
            profile_of(account)
            | {
                "api_key": key, "access_token": access_token, "public_token": "", "enctoken": "", "refresh_token": "",
                "silo": "", "login_time": f"{at.astimezone(IST):%Y-%m-%d %H:%M:%S}",
            }
        )  # fmt: skip

    async def close(self, request: web.Request) -> web.Response:
        key, token = request.query.get("api_key", ""), request.query.get("access_token", "")
        try:
            self.sessions.account(key, token)
        except KiteError as error:
            return refusal(error)
        self.sessions.close(key)
        return envelope(True)
