"""The commands `orders list|show|settle`: see orders, and say how one ended where no venue can say it any more.

Nobody but a group's engine writes its books. So a verdict is a mark on the order's outbox row; the engine asks the venue once
more, claims the order if it is there after all, and takes the verdict only if it is not.
"""

import getpass
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from trading_platform.compliance.audit import record
from trading_platform.execution.books import SETTLING
from trading_platform.execution.order_states import OPEN_STATES, STATES
from trading_platform.execution.verdicts import ABSENT, ENDED, FORM, verdict
from trading_platform.identifiers import GroupId
from trading_platform.settings import settings
from trading_platform.storage.databases import Databases
from trading_platform.storage.group import AuditRow, Fill, Intent, Order, Outbox

orders = typer.Typer(no_args_is_help=True, help="Orders of a group: list them, follow one, settle one that is unknown.")
console = Console()
Group = Annotated[str, typer.Option(help="The user group, as `trading-platform groups` lists it.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object as the last line.")]
OrderArgument = Annotated[str, typer.Argument(help="Client order id, as `orders list` shows it.")]


@orders.command("list")
def list_(
    group: Group,
    state: Annotated[str, typer.Option(help=f"`open`, `all`, or one of {', '.join(sorted(STATES))}.")] = "open",
    account: Annotated[str | None, typer.Option(help="Of this account alone.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many, the newest first.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Which orders are open, and when each is asked for at its venue again. UNKNOWN blocks its symbol for its account.

    Example: `trading-platform orders list --group g1 --state UNKNOWN`
    """
    wanted = {"open": OPEN_STATES, "all": STATES}.get(state, {state})
    if not wanted <= STATES:
        raise typer.BadParameter(f"--state is open, all, or one of {', '.join(sorted(STATES))}; got {state!r}")
    query = _with_outbox().where(Order.state.in_(wanted)).order_by(Order.market_time.desc()).limit(limit)
    if wanted <= OPEN_STATES:
        query = query.where(Outbox.intent_id.is_not(None))  # it has all that are open, and little else
    if account is not None:
        query = query.where(Order.account_id == account)
    with Databases(settings()).group(GroupId(group)) as session:
        rows = [_shown(order, outbox) for order, outbox in session.execute(query).tuples()]
    columns = ("client_order_id", "account", "order", "filled", "state", "sent", "asked_again")
    table = Table(*(name.replace("_", " ") for name in columns), title=f"Orders of {group} ({state}), times in UTC")
    for row in rows:
        table.add_row(*(str(row[name] or "") for name in columns))
    console.print(table if rows else f"Group {group} has no {'' if state == 'all' else f'{state} '}order.")
    if as_json:
        typer.echo(json.dumps({"orders": rows}))


@orders.command()
def show(client_order_id: OrderArgument, group: Group, as_json: AsJson = False) -> None:
    """One order: what was decided, what the venue said and when, its fills, and what is still being asked.

    Example: `trading-platform orders show tp_3f9c --group g1`
    """
    with Databases(settings()).group(GroupId(group)) as session:
        order, outbox, intent = _find(session, client_order_id, group)
        fills = session.scalars(
            select(Fill)
            .where(Fill.user_id == order.user_id, Fill.client_order_id == client_order_id)
            .order_by(Fill.market_time, Fill.trade_id)
        ).all()
        entries = session.scalars(
            select(AuditRow)
            .where(AuditRow.user_id == order.user_id, AuditRow.intent_id == order.intent_id)
            .order_by(AuditRow.seq)
        ).all()
        found = {
            **_shown(order, outbox),
            "venue_order_id": order.venue_order_id,
            "intent": intent.state,
            "purpose": intent.purpose,
            "attempts": intent.attempts + 1,
            "refusal": f"{order.reject_code}: {order.reject_text}" if order.reject_code else None,
            "verdict": outbox.verdict if outbox is not None else None,
            "fills": [
                {"trade_id": fill.trade_id, "quantity": f"{fill.quantity.normalize():f}", "price": f"{fill.price.normalize():f}"}
                for fill in fills
            ],
            "trail": [
                {
                    "at": f"{entry.event_ts:%Y-%m-%d %H:%M:%S.%f}", "event": entry.event_type, "actor": entry.actor,
                    "says": entry.status_message or entry.status or "",
                }
                for entry in entries
            ],
        }  # fmt: skip
    table = Table("", "", title=f"Order {client_order_id}, times in UTC", show_header=False)
    for name, value in found.items():
        if isinstance(value, list):
            for row in value:
                table.add_row(name, "  ".join(str(each) for each in row.values()))
        elif value is not None:
            table.add_row(name.replace("_", " "), str(value))
    console.print(table)
    if as_json:
        typer.echo(json.dumps(found))


@orders.command()
def settle(
    client_order_id: OrderArgument,
    group: Group,
    outcome: Annotated[
        str, typer.Option("--as", help=f"`{ABSENT}`: the venue never had it. `{ENDED}`: it had it, and it is over.")
    ],
    fill: Annotated[
        list[str] | None,
        typer.Option(help=f"A fill that the books lack, as {FORM}; may be repeated. At Kite, whose numbers begin anew "
                     "every day, TRADE_ID is YYYYMMDD-number."),
    ] = None,
    reason: Annotated[str, typer.Option(help="Where you looked.", prompt="Where did you look?")] = "",
    confirm: Annotated[
        str | None, typer.Option(help="The words `settle <client order id> as <outcome>`; asked for if not given.")
    ] = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Say how an order ended: one whose outcome is unknown, or one of an earlier day that is in no book any more.

    Look at the venue's own order book and contract note first. The group's engine asks the venue once more, and takes your
    word only where the venue has none; the order is never sent again. Your name, your words and the reason are audited.

    Example: `trading-platform orders settle tp_3f9c --group g1 --as ended --fill 20260701-4711:10:1500.05:0.42:INR`
    """
    name = getpass.getuser()
    try:
        said = verdict(outcome, fill or (), name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    with Databases(settings()).group(GroupId(group)) as session:
        order, outbox, intent = _find(session, client_order_id, group)
        if outbox is None or outbox.state in (SETTLING, "QUEUED") or order.state not in OPEN_STATES:
            _refuse(f"{client_order_id} is {order.state}: there is nothing to settle. Nothing was changed.")
        if order.venue_order_id is not None and outcome == ABSENT:
            _refuse(f"the venue has given {client_order_id} the number {order.venue_order_id}: settle it as {ENDED!r}.")
        told = sum((_quantity(each) for each in said["fills"]), order.filled_quantity)
        if told > order.quantity:
            _refuse(f"{client_order_id} is for {order.quantity}; with these fills it would have {told}.")
        words = f"settle {client_order_id} as {outcome}"
        typed = confirm if confirm is not None else typer.prompt(f"Type `{words}`")
        if typed.strip() != words:
            _refuse(f"got {typed!r}, expected {words!r}. Nothing was changed.")
        outbox.verdict, outbox.next_try_at = said, func.now()
        record(
            session, user_id=intent.user_id, actor=f"cli:{name}", event_type="UPDATE", status="SETTLED_BY_OPERATOR",
            account_id=intent.account_id, dataset_id=intent.dataset_id, strategy_id=intent.strategy_id,
            intent_id=intent.intent_id, client_order_id=client_order_id, venue_order_id=order.venue_order_id,
            symbol=intent.contract, side=intent.side, quantity=intent.quantity, status_message=reason[:500],
            detail={"verdict": said, "typed": typed},
        )  # fmt: skip
    console.print(
        f"{client_order_id}: the engine asks the venue once more, and settles it as {outcome} if it knows nothing."
    )
    if as_json:
        typer.echo(json.dumps({"client_order_id": client_order_id, "verdict": said}))


def _with_outbox() -> Select[Order, Outbox]:
    """Orders with their outbox rows, which are None for those that are done."""
    row = (Outbox.intent_id == Order.intent_id) & (Outbox.user_id == Order.user_id)
    return select(Order, Outbox).outerjoin(Outbox, row)


def _find(session: Session, client_order_id: str, group: str) -> tuple[Order, Outbox | None, Intent]:
    found = session.execute(_with_outbox().where(Order.client_order_id == client_order_id)).tuples().one_or_none()
    if found is None:
        _refuse(f"group {group} has no order {client_order_id!r}; `trading-platform orders list` shows them.")
    order, outbox = found
    return order, outbox, session.get_one(Intent, (order.user_id, order.intent_id))


def _shown(order: Order, outbox: Outbox | None) -> dict[str, Any]:
    return {
        "client_order_id": order.client_order_id,
        "account": order.account_id,
        "order": f"{order.side} {order.quantity.normalize():f} {order.contract}",
        "filled": f"{order.filled_quantity.normalize():f}",
        "state": order.state,
        "sent": f"{order.sent_at:%Y-%m-%d %H:%M:%S}" if order.sent_at else None,
        "asked_again": f"{outbox.next_try_at:%Y-%m-%d %H:%M:%S}" if outbox is not None else None,
    }


def _quantity(fill: Mapping[str, str]) -> Decimal:
    return Decimal(fill["quantity"])


def _refuse(text: str) -> NoReturn:
    Console(stderr=True).print(f"[red]{text}[/red]")
    raise typer.Exit(1)
