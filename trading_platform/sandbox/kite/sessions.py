"""Log-ins: request tokens that are good once, access tokens that end at 06:00 IST, by the wall clock.

An access token carries its own end and a proof, so that a restart of the sandbox ends nobody's session; a log-out and a
newer log-in of the same key end the ones before.
"""

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from trading_platform.sandbox.books import Account, Books
from trading_platform.sandbox.kite.errors import KiteError, session_gone

IST = ZoneInfo("Asia/Kolkata")
REQUEST_TOKEN_SECONDS = 300.0
ENDS_HOUR = 6


@dataclass
class Sessions:
    """Of all accounts."""

    books: Books
    _requests: dict[str, tuple[str, float]] = field(default_factory=dict)
    _ended_before: dict[str, int] = field(default_factory=dict)
    """{api key: tokens with an earlier serial are over}"""

    def request_token(self, api_key: str, seconds: float = REQUEST_TOKEN_SECONDS) -> str:
        """What the log-in page puts on the redirect. Raises `KiteError` for a key that no account has."""
        if api_key not in self.books.by_key:
            raise KiteError(403, "TokenException", "Incorrect `api_key` or `access_token`.")
        token = secrets.token_urlsafe(24)
        self._requests[token] = (api_key, time.monotonic() + seconds)
        return token

    def open(self, api_key: str, request_token: str, checksum: str) -> tuple[Account, str, datetime]:
        """(account, access token, log-in time). Raises `KiteError`; the request token is used up either way."""
        known, ends = self._requests.pop(request_token, ("", 0.0))
        account = self.books.by_key.get(api_key)
        if account is None or known != api_key or time.monotonic() > ends:
            raise KiteError(403, "TokenException", "Token is invalid or has expired.")
        expected = hashlib.sha256(f"{api_key}{request_token}{account.api_secret}".encode()).hexdigest()
        if not hmac.compare_digest(expected.encode(), checksum.encode()):
            raise KiteError(403, "TokenException", "Invalid `checksum`.")
        now = datetime.now(UTC)
        serial = time.time_ns()
        self._ended_before[api_key] = serial
        return account, self._token(account, serial, _ends(now)), now

    def close(self, api_key: str) -> None:
        self._ended_before[api_key] = time.time_ns()

    def roll_over(self) -> None:
        """End every session at once."""
        for api_key in self.books.by_key:
            self.close(api_key)

    def account(self, api_key: str, access_token: str) -> Account:
        """Whose token it is. Raises `KiteError`."""
        account = self.books.by_key.get(api_key)
        serial, _, rest = access_token.partition(".")
        ends, _, _ = rest.partition(".")
        if account is None or not (serial.isdigit() and ends.isdigit()):
            raise session_gone()
        genuine = hmac.compare_digest(self._token(account, int(serial), int(ends)).encode(), access_token.encode())
        if not genuine or int(ends) < time.time() or int(serial) < self._ended_before.get(api_key, 0):
            raise session_gone()
        return account

    def _token(self, account: Account, serial: int, ends: int) -> str:
        text = f"{serial}.{ends}"
        proof = hmac.new(account.api_secret.encode(), f"{account.api_key}|{text}".encode(), hashlib.sha256)
        return f"{text}.{proof.hexdigest()[:32]}"


def _ends(now: datetime) -> int:
    local = now.astimezone(IST)
    day = local.replace(hour=ENDS_HOUR, minute=0, second=0, microsecond=0)
    return int((day if local < day else day + timedelta(days=1)).timestamp())
