"""One call to Kite Connect, one typed answer: nothing that a server, a proxy or a cable does becomes an exception.

The official client loses what matters when something goes wrong: error types it does not know, the status behind a proxy's
HTML, the difference between a refusal and a time-out. Here a `Failure` keeps all of it: `error_type` and `message` as they
came, the HTTP status, and whether the request can have reached the broker at all.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from trading_platform.venues.zerodha.limits import DaySpentError, RateLimiter, bucket_of

ROOT = "https://api.kite.trade"
VERSION = "3"
TIMEOUT_SECONDS = 7.0
DOWNLOAD_SECONDS = 60.0
"""The dump of all instruments has many megabytes."""
PATIENCE_SECONDS = 2.0
"""How long a request waits for room within the limits before it is given back unsent."""
LONGEST_MESSAGE = 2_000


@dataclass(frozen=True, slots=True)
class Success:
    """`data` of the answer, which may be null where the broker had nothing to say."""

    data: Any


@dataclass(frozen=True, slots=True)
class Failure:
    """Anything else. `status` is None where no answer came; `sent` False where the request cannot have arrived."""

    status: int | None
    error_type: str | None
    message: str
    sent: bool = True
    retry_after_seconds: float | None = None

    def __str__(self) -> str:
        where = "no answer" if self.status is None else f"HTTP {self.status}"
        return f"{where}, {self.error_type or 'no error type'}: {self.message}"


Answer = Success | Failure
Fields = Mapping[str, str | int | float | Sequence[str]]


class KiteTransport:
    """A connection pool for one API key and session. Use it on one event loop; `close` it.

    `source_address`: the local address that requests leave from, for accounts whose orders are bound to a static one.
    `limiter`: the account's limits, which all processes share; without one requests are not counted (the sandbox).
    """

    def __init__(
        self, api_key: str, access_token: str | None, *, root: str = ROOT, source_address: str | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS, limiter: RateLimiter | None = None,
    ) -> None:  # fmt: skip
        self.api_key = api_key
        self.root = root.rstrip("/")
        self.source_address = source_address
        self.limiter = limiter
        self._access_token = access_token
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._session: aiohttp.ClientSession | None = None

    def use(self, access_token: str | None) -> None:
        """Take a new session's token; None after a logout."""
        self._access_token = access_token

    async def call(
        self, method: str, path: str, *, query: Fields | None = None, form: Fields | None = None,
        json: object | None = None, reducing: bool = False,
    ) -> Answer:  # fmt: skip
        """Send one request. Never raises, except `asyncio.CancelledError`.

        `reducing`: a cancellation or an exit, which may use the reserve of the limits.
        """
        if (crowded := await self._room(method, path, reducing)) is not None:
            return crowded
        body: dict[str, Any] = {}
        if json is not None:
            body = {"data": orjson.dumps(json), "headers": self._headers() | {"Content-Type": "application/json"}}
        else:
            body = {"data": _pairs(form) if form is not None else None, "headers": self._headers()}
        try:
            async with self._client().request(
                method, self.root + path, params=_pairs(query or {}), timeout=self._timeout, **body
            ) as response:
                content = await response.read()
                return read_answer(response.status, content, response.headers.get("Retry-After"))
        except aiohttp.ClientConnectorError as error:
            return Failure(None, None, f"no connection: {error}", sent=False)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return Failure(None, None, f"{type(error).__name__}: {error}"[:LONGEST_MESSAGE])

    async def download(self, path: str) -> bytes | Failure:
        """A CSV route; the bytes, unzipped."""
        if (crowded := await self._room("GET", path, False)) is not None:
            return crowded
        try:
            limit = aiohttp.ClientTimeout(total=DOWNLOAD_SECONDS)
            async with self._client().get(self.root + path, headers=self._headers(), timeout=limit) as response:
                content = await response.read()
                if response.ok:
                    return content
                answer = read_answer(response.status, content, response.headers.get("Retry-After"))
                return answer if isinstance(answer, Failure) else Failure(response.status, None, "not a file")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return Failure(None, None, f"{type(error).__name__}: {error}"[:LONGEST_MESSAGE])

    async def clock(self) -> str | Failure:
        """The Date header of an answer: the broker's clock, in whole seconds."""
        try:
            async with self._client().head(self.root + "/", headers=self._headers(), timeout=self._timeout) as response:
                return response.headers["Date"]
        except KeyError:
            return Failure(200, None, "an answer without a Date")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return Failure(None, None, f"{type(error).__name__}: {error}"[:LONGEST_MESSAGE])

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _room(self, method: str, path: str, reducing: bool) -> Failure | None:
        """Wait for room within the limits. What is given back unsent reads as the broker's own refusal would."""
        if self.limiter is None:
            return None
        left = PATIENCE_SECONDS
        try:
            while (wait := await self.limiter.take(bucket_of(method, path), reducing=reducing)) is not None:
                seconds = wait.total_seconds()
                if seconds > left:
                    text = f"Too many requests by our own count: room in {seconds:.2f} s"
                    return Failure(429, "NetworkException", text, sent=False, retry_after_seconds=seconds)
                left -= seconds
                await asyncio.sleep(seconds)
        except DaySpentError as error:
            text = f"Maximum allowed order requests exceeded by our own count: {error}"
            return Failure(429, "NetworkException", text, sent=False)
        return None

    def _headers(self) -> dict[str, str]:
        headers = {"X-Kite-Version": VERSION}
        if self._access_token is not None:
            headers["Authorization"] = f"token {self.api_key}:{self._access_token}"
        return headers

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            local = (self.source_address, 0) if self.source_address else None
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(local_addr=local, limit=20), cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session


def read_answer(status: int, content: bytes, retry_after: str | None = None) -> Answer:
    """What an HTTP answer says, whatever it is made of."""
    seconds = float(retry_after) if retry_after and retry_after.isdigit() else None
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        text = content.decode("utf-8", "replace").strip()[:LONGEST_MESSAGE]
        return Failure(status, None, text or "an empty answer", retry_after_seconds=seconds)
    if not isinstance(body, dict):
        return Failure(
            status, None, f"the answer is a {type(body).__name__}, not an object", retry_after_seconds=seconds
        )
    if status < 300 and body.get("status") == "success" and "data" in body:
        return Success(body["data"])
    kind, message = body.get("error_type"), body.get("message")
    return Failure(
        status, kind if isinstance(kind, str) else None,
        message[:LONGEST_MESSAGE] if isinstance(message, str) else f"no message in {content[:200]!r}",
        retry_after_seconds=seconds,
    )  # fmt: skip


def _pairs(fields: Fields) -> list[tuple[str, str]]:
    """Repeated names for lists, as the broker wants them (`i=NSE:INFY&i=NSE:TCS`)."""
    pairs: list[tuple[str, str]] = []
    for name, value in fields.items():
        if isinstance(value, (str, int, float)):
            pairs.append((name, str(value)))
        else:
            pairs += [(name, each) for each in value]
    return pairs
