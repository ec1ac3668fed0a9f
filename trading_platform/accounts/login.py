"""Logging in: throttle, check the password, write the access audit, start a session.

What a stranger learns from a refusal is the same for an unknown address, a wrong password and a disabled user, and
takes as long.
"""

import asyncio

import structlog
from sqlalchemy import select, update

from trading_platform.accounts import passwords
from trading_platform.accounts.limits import LOGINS_OF_ACCOUNT, LOGINS_OF_ADDRESS, LOGINS_OF_ONE, Limiter, TooManyError
from trading_platform.accounts.roles import known_role
from trading_platform.accounts.sessions import Sessions
from trading_platform.identifiers import GroupId, UserId
from trading_platform.observability import metrics
from trading_platform.storage.control import LoginEvent, User
from trading_platform.storage.databases import Databases

AT_ONCE = 2
"""Argon2 takes 64 MiB and tens of milliseconds of CPU: a flood of log-ins waits its turn instead of taking both."""
log = structlog.get_logger(__name__)


class LoginRefusedError(RuntimeError):
    """The address and the password do not belong to a user who may log in."""


class Login:
    """The one door into a session."""

    def __init__(self, databases: Databases, sessions: Sessions, limiter: Limiter) -> None:
        self._databases = databases
        self._sessions = sessions
        self._limiter = limiter
        self._turn = asyncio.Semaphore(AT_ONCE)

    async def log_in(self, email: str, password: str, *, address: str, agent: str | None = None) -> str:
        """The new session's token.

        Raises `LoginRefusedError`, `TooManyError`, and where Valkey is away `LimitsUnavailableError` or
        `SessionsUnavailableError`: without the counter nobody may try passwords.
        """
        email = email.strip().lower()[:254]
        try:
            await self._limiter.require_left(LOGINS_OF_ADDRESS, address)
            await self._limiter.count(LOGINS_OF_ACCOUNT, email)
            await self._limiter.count(LOGINS_OF_ONE, email, address)
        except TooManyError:
            await self._record(None, email, "throttled", address, agent)
            raise
        user = await self._checked(email, password)
        if user is None:
            await self._record(None, email, "refused", address, agent)
            await self._limiter.count(LOGINS_OF_ADDRESS, address)
            raise LoginRefusedError("e-mail and password do not match a user who may log in")
        token = await self._sessions.start(
            UserId(user.user_id), GroupId(user.group_id), known_role(user.role), user.email, user.display_name
        )
        await self._record(user.user_id, email, "ok", address, agent)
        await self._limiter.forget(LOGINS_OF_ONE, email, address)
        await self._limiter.forget(LOGINS_OF_ACCOUNT, email)
        return token

    async def _checked(self, email: str, password: str) -> User | None:
        async with self._databases.control_async() as session:
            user = await session.scalar(select(User).where(User.email == email))
        known = user.password_hash if user is not None and user.disabled_at is None else None
        async with self._turn:
            if not await asyncio.to_thread(passwords.matches, known, password):
                return None
            if user is not None and passwords.needs_rehash(user.password_hash):
                await self._rehash(user, password)
        return user

    async def _rehash(self, user: User, password: str) -> None:
        """Today's parameters, now that the password is at hand; not over a password changed meanwhile."""
        fresh = await asyncio.to_thread(passwords.hash_password, password)
        async with self._databases.control_async() as session:
            await session.execute(
                update(User)
                .where(User.user_id == user.user_id, User.password_hash == user.password_hash)
                .values(password_hash=fresh)
            )

    async def _record(self, user_id: str | None, email: str, result: str, address: str, agent: str | None) -> None:
        metrics.LOGINS.labels(result=result).inc()
        log.info("login", result=result, user_id=user_id, source_ip=address)
        async with self._databases.control_async() as session:
            session.add(
                LoginEvent(
                    user_id=user_id, email=email, action="login", result=result, source_ip=address,
                    user_agent=agent[:200] if agent else None,
                )
            )  # fmt: skip
