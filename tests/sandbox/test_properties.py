"""What must hold whatever customers and markets do: money, fills, priority, and the journal."""

import shutil
import tempfile
from collections import defaultdict
from decimal import Decimal
from pathlib import Path

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sandbox.markets import BTC, bar, exchange, funded, step
from trading_platform.sandbox.events import Filled
from trading_platform.sandbox.exchange import Exchange
from trading_platform.sandbox.orders import OrderRequest
from trading_platform.sandbox.rules import RefusedError

CUSTOMERS = ("alice", "bob")
CENTRE = 40_000

quantities = st.sampled_from(["0.001", "0.5", "3", "40"]).map(Decimal)
offsets = st.sampled_from([-60, -30, -10, -3, -1, 0, 1, 3, 10, 30, 60])
"""Few prices, so that orders meet at the same one."""
sides = st.sampled_from(["BUY", "SELL"])
orders = st.tuples(
    st.just("order"), st.sampled_from(CUSTOMERS), sides, quantities,
    st.none() | offsets, st.none() | offsets, st.sampled_from(["GTC", "GTC", "IOC", "FOK"]), st.booleans(),
)  # fmt: skip
gaps = st.sampled_from([1, 3, 10, 30])
lists = st.tuples(st.just("list"), st.sampled_from(CUSTOMERS), sides, quantities, gaps, gaps, st.booleans())
cancels = st.tuples(st.just("cancel"), st.integers(0, 50))
replaces = st.tuples(st.just("replace"), st.sampled_from(CUSTOMERS), st.integers(0, 50), sides, quantities, offsets)
steps = st.tuples(st.just("step"), offsets, offsets, st.integers(0, 30), st.sampled_from([0.0, 2.0, 1_000.0]))
commands = st.lists(st.one_of(orders, orders, orders, lists, cancels, replaces, steps, steps), min_size=4, max_size=40)


resting = st.builds(
    lambda name, side, quantity, gap: (
        "order", name, side, quantity, -gap if side == "BUY" else gap, None, "GTC", False,
    ),
    st.sampled_from(CUSTOMERS), sides, st.sampled_from(["2", "5"]).map(Decimal), st.sampled_from([3, 10]),
)  # fmt: skip
quiet_steps = st.tuples(
    st.just("step"), st.just(0), st.just(0), st.sampled_from([0, 3, 5, 10, 12]), st.sampled_from([30.0, 90.0, 400.0])
)
queues = st.tuples(st.lists(resting, min_size=6, max_size=12), st.lists(quiet_steps, min_size=1, max_size=4))


def _price(offset: int | None) -> Decimal | None:
    return None if offset is None else Decimal(CENTRE + 5 * offset)


class Play:
    """Carries out commands on an exchange, refusals included, and looks at everything after each."""

    def __init__(self, folder: Path) -> None:
        self.exchange = exchange(folder)
        self.exchange.step(step(0, bar(0, CENTRE, CENTRE + 10, CENTRE - 10, CENTRE)))
        self.accounts = {name: funded(self.exchange, name) for name in CUSTOMERS}
        self.initial = {
            name: {asset: balance.free for asset, balance in account.balances.items()}
            for name, account in self.accounts.items()
        }
        self.close, self.index, self.refused = 0, 1, 0
        self.posted: list[Filled] = []
        post = self.exchange._post
        self.exchange.matching.post = lambda event: (self.posted.append(event), post(event))[1]  # type: ignore[arg-type]

    def do(self, command: tuple) -> None:
        before = {
            side: [(order, order.rank) for order in self.exchange.markets[BTC].resting[side]]
            for side in ("BUY", "SELL")
        }
        self.posted.clear()
        try:
            getattr(self, command[0])(*command[1:])
        except RefusedError:
            self.refused += 1
        self.money_is_conserved()
        self.fills_add_up()
        self.book_is_not_crossed()
        self.priority_was_kept(before)

    def order(self, name, side, quantity, limit, stop, force, post_only) -> None:
        request = OrderRequest(
            BTC, side, quantity, f"c{self.exchange.books.last_order_id}", _price(limit), _price(stop),
            stop_rises=stop is not None and stop > self.close,
            time_in_force=force if limit is not None else "GTC",
            post_only=post_only and limit is not None and stop is None and force == "GTC",
        )  # fmt: skip
        self.exchange.place_order(self.accounts[name], request)

    def list(self, name, side, quantity, above, below, limited) -> None:
        number = self.exchange.books.last_order_id
        upper, lower = _price(self.close + above), _price(self.close - below)
        if side == "SELL":
            pair = ({"limit_price": upper, "post_only": True}, {"stop_price": lower, "limit_price": lower if limited else None})  # fmt: skip
        else:
            pair = ({"stop_price": upper, "stop_rises": True, "limit_price": upper if limited else None}, {"limit_price": lower, "post_only": True})  # fmt: skip
        legs = [OrderRequest(BTC, side, quantity, f"l{number}-{n}", **leg) for n, leg in enumerate(pair)]
        self.exchange.place_list(self.accounts[name], f"list{number}", *legs)

    def cancel(self, number) -> None:
        if order := self.exchange.books.orders.get(number):
            self.exchange.cancel_order(order)

    def replace(self, name, number, side, quantity, limit) -> None:
        order = self.accounts[name].orders.get(number)
        request = OrderRequest(BTC, side, quantity, f"r{self.exchange.books.last_order_id}", _price(limit))
        self.exchange.replace_order(self.accounts[name], order, request, even_if_done=number % 2 == 0)

    def step(self, opened, close, reach, volume) -> None:
        high, low = max(opened, close) + reach, min(opened, close) - reach
        o, h, low_price, c = (float(CENTRE + 5 * offset) for offset in (opened, high, low, close))
        self.close = close
        self.exchange.step(step(self.index, bar(self.index, o, h, low_price, c, volume)))
        self.index += 1

    # --- what must hold ----------------------------------------------------------------------------------------------

    def money_is_conserved(self) -> None:
        """Balances follow from the trades alone, and what is locked is locked under open orders."""
        for name, account in self.accounts.items():
            expected: dict[str, Decimal] = defaultdict(Decimal, self.initial[name])
            for trade in account.trades:
                sign = 1 if trade.side == "BUY" else -1
                expected["BTC"] += sign * trade.quantity
                expected["USDT"] -= sign * trade.price * trade.quantity
                expected[trade.fee_asset] -= trade.fee
                assert trade.fee_asset == ("BTC" if trade.side == "BUY" else "USDT")
                received = trade.quantity if trade.side == "BUY" else trade.price * trade.quantity
                assert 0 <= received / 1000 - trade.fee < Decimal("1e-8")
            for asset, balance in account.balances.items():
                assert balance.free >= 0
                assert balance.locked >= 0
                assert balance.free + balance.locked == expected[asset]
                under_orders = sum(
                    order.locked
                    for order in account.open.values()
                    if asset == ("USDT" if order.side == "BUY" else "BTC")
                )
                assert balance.locked == under_orders
            for order in account.open.values():
                assert order.locked >= 0
                if order.list_id is None or order.filled:
                    price = order.request.limit_price if order.side == "BUY" else 1
                    assert price is None or order.locked == order.remaining * price

    def fills_add_up(self) -> None:
        for order in self.exchange.books.orders.values():
            assert sum((trade.quantity for trade in order.trades), Decimal(0)) == order.filled <= order.request.quantity
            assert sum((trade.quote_quantity for trade in order.trades), Decimal(0)) == order.quote_filled
            assert (order.state == "FILLED") == (order.filled == order.request.quantity)
            for trade in order.trades:
                assert order.reaches(trade.price), "nobody gets a worse price than the limit"
            assert order.is_open == (order.order_id in self.accounts[order.account_id].open)

    def book_is_not_crossed(self) -> None:
        market = self.exchange.markets[BTC]
        bid, ask = market.best("BUY"), market.best("SELL")
        assert bid is None or ask is None or bid.price < ask.price
        for side in ("BUY", "SELL"):
            for order in market.resting[side]:
                assert order.is_open
                assert order.rank

    def priority_was_kept(self, before) -> None:
        """No resting order is filled while one of a better price, or of the same price and there before, is not done."""
        filled = {event.order_id for event in self.posted if isinstance(event, Filled)}
        for side, queue in before.items():
            better_is_left = None
            for order, _ in sorted(
                queue, key=lambda each: (-each[0].limit if side == "BUY" else each[0].limit, each[1])
            ):
                if order.order_id in filled:
                    assert better_is_left is None, f"{order} before {better_is_left}"
                if order.is_open:
                    better_is_left = better_is_left or order


def state(found: Exchange) -> list[bytes]:
    """The whole state as bytes; versions of the synthetic book aside, which only count changes."""
    records = [orjson.loads(orjson.dumps(record, default=str)) for record in found.snapshot()]
    for record in records:
        record.get("liquidity", {}).pop("version", None)
    return [orjson.dumps(record) for record in records]


@settings(max_examples=80, deadline=None)
@given(commands)
def test_money_fills_and_priority_hold_and_the_journal_gives_the_same_books_back(script) -> None:
    folder = Path(tempfile.mkdtemp(prefix="sandbox-"))
    try:
        play = Play(folder / "first")
        for command in script:
            play.do(command)
        play.exchange.journal.close()

        again = Play(folder / "second")
        for command in script:
            again.do(command)
        again.exchange.journal.close()
        assert (folder / "first/journal-000001.log").read_bytes() == (folder / "second/journal-000001.log").read_bytes()

        rebuilt = exchange(folder / "first")
        assert state(rebuilt) == state(play.exchange)
        rebuilt.journal.compact(rebuilt.snapshot())
        rebuilt.journal.close()
        from_snapshot = exchange(folder / "first")
        assert state(from_snapshot) == state(play.exchange)
        # What comes after must not tell the difference either.
        following = step(play.index, bar(play.index, CENTRE, CENTRE + 400, CENTRE - 400, CENTRE + 100, 50.0))
        for one in (play.exchange, from_snapshot):
            one.step(following)
        assert state(from_snapshot) == state(play.exchange)
        from_snapshot.journal.close()
    finally:
        shutil.rmtree(folder)


@settings(max_examples=80, deadline=None)
@given(queues)
def test_who_queues_at_few_prices_is_served_by_price_and_then_by_time(script) -> None:
    orders, bars = script
    folder = Path(tempfile.mkdtemp(prefix="sandbox-"))
    try:
        play = Play(folder / "journal")
        for command in (*orders, *bars):
            play.do(command)
        play.exchange.journal.close()
    finally:
        shutil.rmtree(folder)
