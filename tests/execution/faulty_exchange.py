"""An exchange on a raw socket that misbehaves as told: what it knows of an order and what it says differ."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

RECV_WINDOW_MS = 5_000


@dataclass
class FaultyExchange:
    """`faults` are used up one an order call: `lost` (never arrives), `unanswered` (executed, answer lost), `throttled`."""

    faults: list[str] = field(default_factory=list)
    orders: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """By client order id; two entries under one id would be a doubled order."""
    calls: int = 0
    url: str = ""

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, target, _ = head.split("\r\n", 1)[0].split(" ")
        length = next((int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length:")), 0)
        body = (await reader.readexactly(length)).decode() if length else ""
        url = urlsplit(target)
        answer = self.answer(method, url.path.rsplit("/", 1)[1], dict(parse_qsl(body or url.query)))
        if answer is None:
            writer.transport.abort()
            return
        status, document = answer
        text = json.dumps(document).encode()
        writer.write(
            f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\nRetry-After: 1\r\n"
            "Connection: close\r\n\r\n".encode()
            + text
        )
        await writer.drain()
        writer.close()

    def answer(self, method: str, path: str, given: dict[str, str]) -> tuple[int, Any] | None:
        if (method, path) == ("POST", "order"):
            return self.place(given)
        found = next((o for o in self.all() if o["clientOrderId"] == given.get("origClientOrderId")), None)
        if path == "order":
            return (200, found) if found else (400, {"code": -2013, "msg": "Order does not exist."})
        trades = [fill for o in self.all() if str(o["orderId"]) == given.get("orderId") for fill in o["fills"]]
        return 200, trades

    def place(self, given: dict[str, str]) -> tuple[int, Any] | None:
        self.calls += 1
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "lost":
            return None
        if fault == "throttled":
            return 429, {"code": -1003, "msg": "Too many requests"}
        if time.time() * 1_000 - int(given["timestamp"]) > RECV_WINDOW_MS:
            return 400, {"code": -1021, "msg": "Timestamp for this request is outside of the recvWindow."}
        number = 100 + sum(len(each) for each in self.orders.values())
        fill = {
            "tradeId": number, "id": number, "price": "100", "qty": given["quantity"], "commission": "0.001",
            "commissionAsset": "BTC", "time": 1_709_294_400_000,
        }  # fmt: skip
        order = {
            "orderId": number, "clientOrderId": given["newClientOrderId"], "status": "FILLED", "side": given["side"],
            "executedQty": given["quantity"], "transactTime": 1_709_294_400_000, "fills": [fill],
        }  # fmt: skip
        self.orders.setdefault(given["newClientOrderId"], []).append(order)
        return None if fault == "unanswered" else (200, order)

    def all(self) -> list[dict[str, Any]]:
        return [order for orders in self.orders.values() for order in orders]


@asynccontextmanager
async def faulty_exchange(*faults: str) -> AsyncIterator[FaultyExchange]:
    exchange = FaultyExchange(list(faults))
    server = await asyncio.start_server(exchange.talk, "127.0.0.1", 0)
    exchange.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield exchange
    finally:
        server.close()
