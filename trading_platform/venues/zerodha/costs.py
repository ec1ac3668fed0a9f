"""What orders would block and cost by the broker's own reckoning: margins, baskets, and its contract note.

Ours is in `markets/margins.py` and `markets/contract_note.py`; this is what it is checked against every day.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from trading_platform.markets.kite_orders import KiteOrder
from trading_platform.venues.port import MarginTold, QueryFailedError
from trading_platform.venues.zerodha.books import BookOrder, Books
from trading_platform.venues.zerodha.questions import ask, money, read, rows_of
from trading_platform.venues.zerodha.transport import KiteTransport


@dataclass(frozen=True, slots=True)
class ChargesTold:
    """Charges of one order by the broker's own reckoning, unrounded."""

    total: Decimal
    brokerage: Decimal
    transaction_tax: Decimal
    exchange: Decimal
    sebi: Decimal
    stamp: Decimal
    gst: Decimal


@dataclass(frozen=True, slots=True)
class OrderMargin:
    """What an order would block by the broker's own reckoning."""

    tradingsymbol: str
    total: Decimal
    span: Decimal
    exposure: Decimal
    option_premium: Decimal
    var: Decimal
    leverage: Decimal
    charges: ChargesTold | None


@dataclass(frozen=True, slots=True)
class BasketMargin:
    """Of several orders together: `final` with the benefit of spreads, `initial` without."""

    initial: Decimal
    final: Decimal
    orders: tuple[OrderMargin, ...]


@dataclass
class Costs:
    """Reckonings of one account. All raise `QueryFailedError`."""

    transport: KiteTransport

    async def order_margins(self, orders: Sequence[KiteOrder]) -> list[OrderMargin]:
        return rows_of(
            await ask(self.transport, "/margins/orders", json=[_for_margin(each) for each in orders]), _margin
        )

    async def basket_margin(self, orders: Sequence[KiteOrder], *, consider_positions: bool = True) -> BasketMargin:
        found = await ask(
            self.transport, "/margins/basket", json=[_for_margin(each) for each in orders],
            query={"consider_positions": "true" if consider_positions else "false"},
        )  # fmt: skip
        return read(
            found,
            lambda data: BasketMargin(
                money(data["initial"]["total"]), money(data["final"]["total"]), tuple(map(_margin, data["orders"]))
            ),
        )

    async def charges(self, traded: Iterable[tuple[BookOrder, Decimal]]) -> list[ChargesTold]:
        """The broker's contract note for orders at these average prices: the daily check of our own reckoning."""
        asked = [
            {
                "order_id": order.order_id, "exchange": order.exchange, "tradingsymbol": order.tradingsymbol,
                "transaction_type": order.side, "variety": order.variety, "product": order.product,
                "order_type": order.order_type, "quantity": order.filled, "average_price": float(price),
            }
            for order, price in traded
        ]  # fmt: skip
        return rows_of(
            await ask(self.transport, "/charges/orders", json=asked), lambda row: charges_told(row["charges"])
        )


async def margin_told(transport: KiteTransport, orders: Sequence[KiteOrder], *, sets: bool) -> MarginTold:
    """What orders would block and what is free, both asked at once. Raises `QueryFailedError`.

    Positions are left out of a set's reckoning: what they block is not among what is free.
    """
    costs, funds = Costs(transport), Books(transport).funds()
    if sets:
        basket, told = await asyncio.gather(costs.basket_margin(orders, consider_positions=False), funds)
        needed, rows = basket.final, list(basket.orders)
    else:
        rows, told = await asyncio.gather(costs.order_margins(orders), funds)
        needed = sum((each.total for each in rows), Decimal(0))
    if len(rows) != len(orders) or "equity" not in told:
        raise QueryFailedError(f"Zerodha told margins of {len(rows)} orders of {len(orders)}, money of {sorted(told)}")
    return MarginTold(needed, tuple(each.total for each in rows), told["equity"].usable)


def charges_told(row: Mapping[str, Any]) -> ChargesTold:
    return ChargesTold(
        money(row["total"]), money(row["brokerage"]), money(row["transaction_tax"]),
        money(row["exchange_turnover_charge"]), money(row["sebi_turnover_charge"]), money(row["stamp_duty"]),
        money(row["gst"]["total"]),
    )  # fmt: skip


def _margin(row: Mapping[str, Any]) -> OrderMargin:
    return OrderMargin(
        row["tradingsymbol"], money(row["total"]), money(row["span"]), money(row["exposure"]),
        money(row["option_premium"]), money(row["var"]), money(row["leverage"]),
        charges_told(row["charges"]) if row.get("charges") else None,
    )  # fmt: skip


def _for_margin(order: KiteOrder) -> dict[str, object]:
    return {
        "exchange": order.exchange, "tradingsymbol": order.tradingsymbol, "transaction_type": order.side,
        "variety": order.variety, "product": order.product, "order_type": order.order_type, "quantity": order.quantity,
        "price": float(order.price or 0), "trigger_price": float(order.trigger_price or 0),
    }  # fmt: skip
