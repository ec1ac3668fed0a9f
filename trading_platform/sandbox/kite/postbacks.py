"""Postbacks: what became of an order, sent to the app's own address, with a checksum over a part of it."""

import asyncio
import hashlib
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import structlog

from trading_platform.sandbox.books import Account

log = structlog.get_logger(__name__)
TIMEOUT_SECONDS = 5.0
APP_ID = 1
TOLD = {"COMPLETE", "CANCELLED", "REJECTED"}
LEFT_OUT = {"modified", "validity_ttl", "tags"}


@dataclass
class Postbacks:
    """`urls`: API key to address. Delivered once, in the background; nothing is retried, as at the broker."""

    urls: dict[str, str] = field(default_factory=dict)
    _sending: set["asyncio.Task[None]"] = field(default_factory=set)

    def tell(self, account: Account, row: dict[str, Any]) -> None:
        """Send the row of an order that changed, where its app wants to know."""
        url = self.urls.get(account.api_key)
        final = row["status"] in TOLD
        if url is None or not (final or row["filled_quantity"] or row["modified"]):
            return
        body = {name: value for name, value in row.items() if name not in LEFT_OUT}
        body |= {
            "status": row["status"] if final else "UPDATE", "user_id": row["placed_by"], "app_id": APP_ID,
            "unfilled_quantity": row["pending_quantity"],
            "checksum": checksum(row["order_id"], row["order_timestamp"], account.api_secret),
        }  # fmt: skip
        task = asyncio.get_running_loop().create_task(_send(url, body))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)


def checksum(order_id: str, order_timestamp: str, api_secret: str) -> str:
    """Kite Connect, postbacks: sha256 of number, time as sent, and secret."""
    return hashlib.sha256(f"{order_id}{order_timestamp}{api_secret}".encode()).hexdigest()


async def _send(url: str, body: dict[str, Any]) -> None:
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)) as session,
            session.post(url, json=body) as answer,
        ):
            log.info("postback_sent", status=answer.status, order_status=body["status"])
    except (aiohttp.ClientError, TimeoutError, ValueError) as problem:
        log.warning("postback_not_taken", error=repr(problem))
