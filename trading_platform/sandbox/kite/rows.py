"""Orders and trades as Kite's JSON has them."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from trading_platform.markets.contracts import Contract
from trading_platform.sandbox.orders import Order, Trade

IST = ZoneInfo("Asia/Kolkata")
FIRST_EXCHANGE_NUMBER = 1_000_000_000_000_000
NEVER_SENT = frozenset({"PUT ORDER REQ RECEIVED", "VALIDATION PENDING", "OPEN PENDING", "AMO REQ RECEIVED"})


@dataclass
class Rows:
    """`looks_cancelled`: orders that are shown as cancelled and are not (a fault: their fill comes late)."""

    contracts: dict[str, Contract]
    looks_cancelled: set[int] = field(default_factory=set)

    def order(self, order: Order, status: str | None = None) -> dict[str, Any]:
        """A row of the book; `status`: as it was when the order was there in its life."""
        request, terms = order.request, order.request.terms
        shown = status or self.status(order)
        past = status is not None and status != self.status(order)
        quantity, filled = int(request.quantity), 0 if past else int(order.filled)
        ended = shown in ("COMPLETE", "CANCELLED", "REJECTED")
        sent = shown not in NEVER_SENT and shown != "REJECTED"
        return {
            "placed_by": user_id(order.account_id) if "by" not in terms else terms["by"],
            "order_id": number_of(order),
            "exchange_order_id": str(FIRST_EXCHANGE_NUMBER + order.order_id) if sent else None,
            "parent_order_id": terms.get("parent"),
            "status": shown,
            "status_message": order.reason.partition("|")[0] if shown == "REJECTED" else None,
            "status_message_raw": order.reason.rpartition("|")[2] if shown == "REJECTED" else None,
            "order_timestamp": stamp(order.time),
            "exchange_update_timestamp": stamp(order.updated) if sent else None,
            "exchange_timestamp": stamp(order.updated) if sent else None,
            "variety": terms["variety"],
            "modified": terms.get("modified", "0") != "0",
            "exchange": terms["exchange"],
            "tradingsymbol": request.symbol,
            "instrument_token": self.contracts[request.symbol].instrument_token,
            "order_type": terms.get("shown_as", terms["order_type"]),
            "transaction_type": request.side,
            "validity": terms["validity"],
            "validity_ttl": int(terms.get("validity_ttl", "0")),
            "product": terms["product"],
            "quantity": quantity,
            "disclosed_quantity": int(terms.get("disclosed_quantity", "0")),
            "price": float(request.limit_price or 0),
            "trigger_price": float(request.stop_price or 0),
            "average_price": float(order.quote_filled / order.filled) if filled else 0,
            "filled_quantity": filled,
            "pending_quantity": 0 if ended else quantity - filled,
            "cancelled_quantity": quantity - filled if shown == "CANCELLED" else 0,
            "market_protection": 0,
            "meta": _meta(terms),
            "tag": terms.get("tag"),
            "tags": _tags(terms),
            "guid": f"{order.order_id}X{order.account_id[:6]}",
        }

    def status(self, order: Order) -> str:
        return "CANCELLED" if order.order_id in self.looks_cancelled else statuses_of(order)[-1]

    def history(self, order: Order) -> list[dict[str, Any]]:
        return [self.order(order, status) for status in statuses_of(order)]

    def trade(self, trade: Trade, order: Order) -> dict[str, Any]:
        terms = order.request.terms
        return {
            "trade_id": str(trade.trade_id),
            "order_id": number_of(order),
            "exchange": terms["exchange"],
            "tradingsymbol": trade.symbol,
            "instrument_token": self.contracts[trade.symbol].instrument_token,
            "product": terms["product"],
            "average_price": float(trade.price),
            "quantity": int(trade.quantity),
            "exchange_order_id": str(FIRST_EXCHANGE_NUMBER + order.order_id),
            "transaction_type": trade.side,
            "fill_timestamp": stamp(trade.time),
            "order_timestamp": stamp(order.time)[11:],
            "exchange_timestamp": stamp(trade.time),
        }


def number_of(order: Order) -> str:
    """Kite's numbers begin with the day and are text: newer ones do not fit a float."""
    return f"{local(order.time):%y%m%d}{order.order_id:09d}"


def user_id(account_id: str) -> str:
    return account_id[:6].upper()


def statuses_of(order: Order) -> list[str]:
    """The lifecycle of an order up to now, in the broker's words."""
    terms = order.request.terms
    hops = ["PUT ORDER REQ RECEIVED"]
    waits = order.working_since is None and order.is_open
    if terms["variety"] == "amo":
        hops.append("AMO REQ RECEIVED")
        if waits and order.request.at_open:
            return hops
    hops.append("VALIDATION PENDING")
    if order.state == "REJECTED":
        return [*hops, "REJECTED"]
    hops.append("OPEN PENDING")
    if order.request.stop_price is not None:
        hops.append("TRIGGER PENDING")
    if terms.get("modified", "0") != "0":
        hops += ["MODIFY VALIDATION PENDING", "MODIFY PENDING", "MODIFIED"]
        if waits and order.request.stop_price is not None:
            hops.append("TRIGGER PENDING")
    if order.working_since is not None or (waits and order.request.stop_price is None):
        hops.append("OPEN")
    if order.state == "CANCELED":
        hops.append("CANCEL PENDING")
    if not order.is_open:
        hops.append("COMPLETE" if order.state == "FILLED" else "CANCELLED")
    return hops


def local(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1_000, IST)


def stamp(milliseconds: int) -> str:
    return f"{local(milliseconds):%Y-%m-%d %H:%M:%S}"


def _meta(terms: dict[str, str]) -> dict[str, Any]:
    if "iceberg" not in terms:
        return {}
    leg, legs, size, total = (int(part) for part in terms["iceberg"].split("/"))
    left = max(total - leg * size, 0)
    names = ("leg", "legs", "leg_quantity", "total_quantity", "remaining_quantity")
    return {"iceberg": dict(zip(names, (leg, legs, size, total, left), strict=True))}


def _tags(terms: dict[str, str]) -> list[str]:
    tags = [terms["tag"]] if "tag" in terms else []
    if "protection" in terms:
        tags += ["mktp", f"mktp:{terms['protection']}"]
    if "autoslice" in terms:
        tags += ["autoslice", f"autoslice:{terms['autoslice']}"]
    return tags
