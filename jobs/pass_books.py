"""Order by order and fill by fill: the platform's books against the sandbox's own, which no engine ever reads."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import httpx
from sqlalchemy import select

from trading_platform.settings import Settings
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import Account, Fill, Intent, Order
from trading_platform.venues.zerodha.venue import tag_of

MOST_SHOWN = 10
LOOKS = 4
"""A market that goes on has orders on their way; what differs at every look, a second apart, is a difference."""


@dataclass
class BooksCompared:
    """What both books hold of a dataset's paper accounts. `differences` has a line for each that do not agree."""

    orders: int = 0
    fills: int = 0
    differences: list[str] = field(default_factory=list)

    def shown(self) -> dict[str, Any]:
        return {"orders": self.orders, "fills": self.fills, "differences": self.differences[:MOST_SHOWN]}


def compare_books(settings: Settings, databases: Databases, dataset_id: str) -> BooksCompared:
    """Compare every order that reached the venue, and every fill. Raises `httpx.HTTPError` without a sandbox."""
    found = _look(settings, databases, dataset_id)
    for _ in range(LOOKS - 1):
        if not found.differences:
            break
        time.sleep(1)
        again = _look(settings, databases, dataset_id)
        again.differences = [line for line in again.differences if line in found.differences]
        found = again
    return found


def _look(settings: Settings, databases: Databases, dataset_id: str) -> BooksCompared:
    found = BooksCompared()
    token = settings.sandbox_admin_token
    headers = {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}
    with httpx.Client(base_url=str(settings.sandbox_url), headers=headers, timeout=60) as sandbox:
        for group_id in databases.group_ids():
            with databases.group(group_id) as session:
                accounts = session.execute(
                    select(Account.account_id, Account.venue).where(Account.dataset_id == dataset_id)
                ).all()
                for account, venue in accounts:
                    naming = KITE if venue == "zerodha" else BINANCE
                    theirs = {kind: _ask(sandbox, kind, account) for kind in ("orders", "fills")}
                    orders = session.scalars(
                        select(Order).join(Intent, Intent.intent_id == Order.intent_id).where(
                            Order.account_id == account, Intent.state != "ABANDONED", Order.state != "REJECTED"
                        )
                    )  # fmt: skip
                    fills = session.scalars(select(Fill).where(Fill.account_id == account))
                    found.orders += len(theirs["orders"])
                    found.fills += len(theirs["fills"])
                    contracts = dict(
                        session.execute(
                            select(Intent.client_order_id, Intent.contract).where(Intent.account_id == account)
                        ).all()
                    )
                    ours = [_order(row, naming) for row in orders]
                    found.differences += _differences("order", ours, map(_their_order, theirs["orders"]))
                    ours = [_fill(row, contracts[row.client_order_id], naming) for row in fills]
                    found.differences += _differences(
                        "fill", ours, (_their_fill(row, naming) for row in theirs["fills"])
                    )
    return found


def _ask(sandbox: httpx.Client, kind: str, account: str) -> list[dict[str, Any]]:
    answer = sandbox.get(f"/sandbox/books/{kind}", params={"account_id": account})
    return list(answer.raise_for_status().json())


@dataclass(frozen=True)
class Naming:
    """How our names are found at a venue: order ids, the venue's own numbers, trade numbers; and who takes the fee."""

    client_id: Callable[[str], str]
    order_number: Callable[[str], str]
    trade_number: Callable[[str], str]
    takes_fees: bool


BINANCE = Naming(str, str, str, takes_fees=True)
# Kite knows tags, numbers that begin with the day, and bills charges at its end.
KITE = Naming(tag_of, lambda number: str(int(number[6:])), lambda trade: trade.partition("-")[2], takes_fees=False)


def _order(row: Order, naming: Naming) -> dict[str, Any]:
    number = naming.order_number(row.venue_order_id) if row.venue_order_id else None
    return {
        "id": naming.client_id(row.client_order_id), "venue id": number, "symbol": row.contract, "side": row.side,
        "quantity": row.quantity, "filled": row.filled_quantity,
    }  # fmt: skip


def _their_order(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": row["client_order_id"], "venue id": row["order_id"], "symbol": row["symbol"], "side": row["side"],
        "quantity": Decimal(row["quantity"]), "filled": Decimal(row["filled"]),
    }  # fmt: skip


def _fill(row: Fill, contract: str, naming: Naming) -> dict[str, Any]:
    return {
        "id": f"{contract} {naming.trade_number(row.trade_id)}", "order": naming.client_id(row.client_order_id),
        "price": row.price, "quantity": row.quantity, **({"fee": row.fee} if naming.takes_fees else {}),
    }  # fmt: skip


def _their_fill(row: Mapping[str, Any], naming: Naming) -> dict[str, Any]:
    return {
        "id": f"{row['symbol']} {row['trade_id']}", "order": row["client_order_id"], "price": Decimal(row["price"]),
        "quantity": Decimal(row["quantity"]), **({"fee": Decimal(row["fee"])} if naming.takes_fees else {}),
    }  # fmt: skip


def _differences(kind: str, ours: Iterable[dict[str, Any]], theirs: Iterable[dict[str, Any]]) -> list[str]:
    """A line for each row that only one side has or that the sides tell differently, or that a side has twice."""
    our_rows, their_rows = list(ours), list(theirs)
    ours_by_id, theirs_by_id = ({row["id"]: row for row in rows} for rows in (our_rows, their_rows))
    lines = [
        f"{kind} {name}: {_side(ours_by_id.get(name))} in our books, {_side(theirs_by_id.get(name))} at the venue"
        for name in sorted(ours_by_id.keys() | theirs_by_id.keys())
        if ours_by_id.get(name) != theirs_by_id.get(name)
    ]
    if len(our_rows) != len(ours_by_id) or len(their_rows) != len(theirs_by_id):
        lines.append(f"{kind}s: an id occurs twice")
    return lines


def _side(row: Mapping[str, Any] | None) -> str:
    return "nothing" if row is None else ", ".join(f"{name} {value}" for name, value in row.items() if name != "id")
