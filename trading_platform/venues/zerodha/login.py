"""Log-in to Kite Connect: the address a person is sent to, the exchange of what comes back, and how long that holds.

Zerodha's rules: a person logs in once a day, with a second factor, on Zerodha's own page; the platform never sees a
password. A request token is good once and for minutes, an access token until 06:00 IST of the next day at the latest, and
a new log-in to the same app ends the one before.
"""

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import TypedDict
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from trading_platform.markets.sessions import Segment, session_of
from trading_platform.venues.zerodha.errors import Meaning, meaning_of
from trading_platform.venues.zerodha.transport import Failure, KiteTransport, Success


class LoginAlert(TypedDict):
    source: str
    title: str


IST = ZoneInfo("Asia/Kolkata")
LOGIN_URL = "https://kite.zerodha.com/connect/login"
AUTHORISE_URL = "https://kite.zerodha.com/connect/portfolio/authorize/holdings"
ENDS_AT = time(6, 0)
ASKED_FROM = time(8, 0)
STATE_LIVES = timedelta(minutes=10)
LOGIN_ALERT: LoginAlert = {"source": "zerodha", "title": "Log in to Zerodha"}
"""What alerts of missing sessions are known by, with the account as label: a log-in resolves it."""


class LoginRefusedError(PermissionError):
    """The broker did not give a session; `meaning` says why and what to do."""

    def __init__(self, meaning: Meaning, failure: Failure) -> None:
        super().__init__(f"{meaning.code}: {failure.message} ({meaning.remedy})")
        self.meaning = meaning


@dataclass(frozen=True)
class KiteSession:
    """A session as the broker gave it. `access_token` is a secret: vault only, never a log."""

    user_id: str
    user_name: str
    access_token: str
    logged_in_at: datetime
    expires_at: datetime
    exchanges: tuple[str, ...]
    products: tuple[str, ...]

    def __repr__(self) -> str:
        return f"KiteSession(user_id={self.user_id!r}, expires_at={self.expires_at.isoformat()})"

    def is_fresh(self, now: datetime) -> bool:
        return now < self.expires_at


def login_url(api_key: str, state: str, base: str = LOGIN_URL) -> str:
    """Where to send the browser. `state` comes back on the redirect untouched: compare it before anything else."""
    return f"{base}?{urlencode({'v': '3', 'api_key': api_key, 'redirect_params': urlencode({'state': state})})}"


def signed_state(account_id: str, user_id: str, api_secret: str, now: datetime) -> str:
    """A `state` that only we can have made, for this user and account, good for ten minutes.

    Signed with the account's API secret, so that nothing has to be stored between the two halves of a log-in: a request
    token that somebody else's browser was sent with does not come with it.
    """
    made = f"{account_id}|{user_id}|{int((now + STATE_LIVES).timestamp())}|{secrets.token_urlsafe(9)}"
    return base64.urlsafe_b64encode(f"{made}|{_signature(made, api_secret)}".encode()).decode()


def account_in_state(state: str) -> str | None:
    """Which account a state says that it is of, not yet believed (`state_is_ours`). None for what is no state."""
    parts = _state_parts(state)
    return parts[0] if parts else None


def state_is_ours(state: str, account_id: str, user_id: str, api_secret: str, now: datetime) -> bool:
    """Whether a state was made here for this user and account, and is not too old."""
    parts = _state_parts(state)
    if parts is None:
        return False
    made, signature = "|".join(parts[:4]), parts[4]
    genuine = hmac.compare_digest(_signature(made, api_secret).encode(), signature.encode())
    return genuine and parts[:2] == [account_id, user_id] and now.timestamp() < int(parts[2])


def session_checksum(api_key: str, request_token: str, api_secret: str) -> str:
    """Proof that we hold the secret, without sending it: sha256 of the three texts one after the other."""
    return hashlib.sha256(f"{api_key}{request_token}{api_secret}".encode()).hexdigest()


def postback_is_genuine(order_id: str, order_timestamp: str, checksum: str, api_secret: str) -> bool:
    """Whether a postback's checksum is the broker's.

    It does not cover status and quantities: a genuine postback is a reason to read the order, never a record of it.
    """
    expected = hashlib.sha256(f"{order_id}{order_timestamp}{api_secret}".encode()).hexdigest()
    return hmac.compare_digest(expected.encode(), checksum.encode())


def session_ends(logged_in_at: datetime) -> datetime:
    """06:00 IST after the log-in, as aware UTC."""
    local = logged_in_at.astimezone(IST)
    day = local.date() + timedelta(days=local.time() >= ENDS_AT)
    return datetime.combine(day, ENDS_AT, IST).astimezone(UTC)


def login_wanted(session: KiteSession | None, now: datetime, segment: Segment = "NSE") -> datetime | None:
    """By when somebody must log in so that the next session of `segment` can be traded; None where nobody need.

    Asked from 08:00 IST of a trading day on: sessions of the day before end at 06:00, and the broker has been seen to
    flush tokens until 07:30.
    """
    local = now.astimezone(IST)
    spans = session_of(segment, local.date())
    if not spans or local.time() < ASKED_FROM or now >= spans[-1].ends:
        return None
    if session is not None and session.is_fresh(now) and session.expires_at >= spans[-1].ends:
        return None
    return spans[0].starts


async def open_session(transport: KiteTransport, request_token: str, api_secret: str) -> KiteSession:
    """Exchange a request token for a session; the transport uses it from then on. Raises `LoginRefusedError`."""
    form = {
        "api_key": transport.api_key,
        "request_token": request_token,
        "checksum": session_checksum(transport.api_key, request_token, api_secret),
    }
    answer = await transport.call("POST", "/session/token", form=form)
    if isinstance(answer, Failure):
        raise LoginRefusedError(meaning_of(answer, "session"), answer)
    try:
        session = _session(answer)
    except (KeyError, TypeError, ValueError) as problem:
        failure = Failure(200, None, f"the answer to the log-in cannot be read: {problem!r}")
        raise LoginRefusedError(meaning_of(failure, "session"), failure) from problem
    transport.use(session.access_token)
    return session


async def close_session(transport: KiteTransport, access_token: str) -> None:
    """Log out. A session that is gone already is no error."""
    await transport.call("DELETE", "/session/token", query={"api_key": transport.api_key, "access_token": access_token})
    transport.use(None)


async def authorise_holdings(transport: KiteTransport, base: str = AUTHORISE_URL) -> str | Failure:
    """Where to send the browser so that its user lets the depository release shares for sale today (CDSL)."""
    answer = await transport.call("POST", "/portfolio/holdings/authorise", form={})
    if isinstance(answer, Failure):
        return answer
    try:
        return f"{base}/{transport.api_key}/{answer.data['request_id']}"
    except (KeyError, TypeError):
        return Failure(200, None, "the answer names no request_id")


def _signature(made: str, api_secret: str) -> str:
    return hmac.new(api_secret.encode(), f"kite login {made}".encode(), hashlib.sha256).hexdigest()


def _state_parts(state: str) -> list[str] | None:
    try:
        parts = base64.urlsafe_b64decode(state.encode()).decode().split("|")
    except ValueError:
        return None
    return parts if len(parts) == 5 and parts[2].isdigit() else None


def _session(answer: Success) -> KiteSession:
    data = answer.data
    logged_in = datetime.strptime(data["login_time"], "%Y-%m-%d %H:%M:%S").replace(tzinfo=IST).astimezone(UTC)
    return KiteSession(
        user_id=str(data["user_id"]),
        user_name=str(data["user_name"]),
        access_token=str(data["access_token"]),
        logged_in_at=logged_in,
        expires_at=session_ends(logged_in),
        exchanges=tuple(data["exchanges"]),
        products=tuple(data["products"]),
    )
