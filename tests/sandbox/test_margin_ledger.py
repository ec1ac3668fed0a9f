"""Money and units are conserved whatever is traded on margin: each account's books against its fills alone."""

import tempfile
from collections import defaultdict
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from trading_platform.identifiers import Symbol, Venue
from trading_platform.markets.instruments import Instrument
from trading_platform.sandbox.events import BarClosed
from trading_platform.sandbox.exchange import Exchange, Genesis
from trading_platform.sandbox.margin_ledger import Position, day_of
from trading_platform.sandbox.orders import OrderRequest
from trading_platform.sandbox.rules import RefusedError
from trading_platform.sandbox.sources import Step

D = Decimal
CASH = D(1_000_000)
MINUTE = 60_000
START = 1_700_000_040_000
SYMBOLS = ("INFY", "NIFTYFUT")
CUSTOMERS = ("alice", "bob", "carol")

orders = st.tuples(
    st.just("order"), st.sampled_from(CUSTOMERS), st.sampled_from(SYMBOLS), st.sampled_from(["BUY", "SELL"]),
    st.sampled_from(["CNC", "MIS", "NRML"]), st.integers(1, 400), st.integers(-40, 40),
    st.sampled_from(["GTC", "GTC", "IOC"]), st.none() | st.integers(-30, 30),
)  # fmt: skip
cancels = st.tuples(st.just("cancel"), st.integers(0, 60))
amends = st.tuples(st.just("amend"), st.integers(0, 60), st.integers(1, 400), st.integers(-40, 40))
bars = st.tuples(st.just("bar"), st.integers(-30, 30), st.integers(0, 30), st.sampled_from([0.0, 500.0, 50_000.0]))
commands = st.lists(st.one_of(orders, orders, orders, bars, bars, cancels, amends), min_size=5, max_size=45)


def a_fifth(symbol: str, product: str, side: str, quantity: Decimal, value: Decimal, time: int) -> Decimal:
    return value / 5


def open_exchange(folder: Path) -> Exchange:
    instruments = [Instrument(Venue("nse"), Symbol(name), name, "INR", D("0.05"), D(1), D(0)) for name in SYMBOLS]
    return Exchange.open(folder, Genesis("margin", 60, 7, instruments, on_margin=True), margin_of=a_fifth)


def price(offset: int) -> Decimal:
    return D(1_000) + D(offset) * D("0.25")


class Play:
    """Does what it is told and checks all books afterwards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.exchange = open_exchange(folder)
        for name in CUSTOMERS:
            self.exchange.open_account(name, f"key-{name}", f"secret-{name}", {"INR": CASH})
        self.minute = 0
        self.bar(0, 2, 5_000.0)

    def order(self, name, symbol, side, product, quantity, offset, force, stop) -> None:
        request = OrderRequest(
            symbol, side, D(quantity), "", price(offset), None if stop is None else price(stop), side == "BUY", force,
            terms={"product": product},
        )  # fmt: skip
        self.exchange.place_order(self.exchange.books.accounts[name], request)

    def cancel(self, number) -> None:
        if order := self.exchange.books.orders.get(number):
            self.exchange.cancel_order(order)

    def amend(self, number, quantity, offset) -> None:
        if order := self.exchange.books.orders.get(number):
            was = order.request
            changed = OrderRequest(was.symbol, was.side, D(quantity), "", price(offset), terms=was.terms)
            self.exchange.amend_order(order, changed)

    def bar(self, offset, reach, volume) -> None:
        self.minute += 1
        middle, spread = float(price(offset)), reach * 0.25
        found = [
            BarClosed(symbol, START + self.minute * MINUTE, middle, middle + spread, middle - spread, middle, volume)
            for symbol in SYMBOLS
        ]
        self.exchange.step(Step(START + (self.minute + 1) * MINUTE, found))

    def check(self) -> None:
        books = self.exchange.books
        for account in books.accounts.values():
            cash = account.balance("INR")
            units: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
            paid = D(0)
            for trade in account.trades:
                sign = 1 if trade.side == "BUY" else -1
                units[trade.symbol, books.orders[trade.order_id].request.terms["product"]] += sign * trade.quantity
                paid += sign * trade.price * trade.quantity
            assert {(each.symbol, each.product): each.units for each in account.positions.values() if each.units} == {
                key: value for key, value in units.items() if value
            }
            on_margin = [each for each in account.positions.values() if each.product != "CNC"]
            assert cash.free + cash.locked == CASH - paid + sum((each.cost for each in on_margin), D(0))
            blocked = sum((each.margin for each in on_margin), D(0))
            for_orders = sum(
                (each.locked for each in account.open.values() if books.locks(each.request) == "INR"), D(0)
            )
            assert cash.locked == blocked + for_orders
            for symbol in SYMBOLS:
                shares = account.balance(symbol)
                assert shares.free + shares.locked == units[symbol, "CNC"]
                assert min(shares.free, shares.locked) >= 0
        for order in books.orders.values():
            assert order.filled == sum((trade.quantity for trade in order.trades), D(0))
            assert D(0) <= order.filled <= order.request.quantity
            assert all(order.reaches(trade.price) for trade in order.trades)


def held(exchange: Exchange) -> dict:
    """What accounts have, without the empty rows that looking at them leaves."""
    return {
        name: (
            {asset: balance for asset, balance in account.balances.items() if balance.free or balance.locked},
            {key: position for key, position in account.positions.items() if position.units},
        )
        for name, account in exchange.books.accounts.items()
    }


@settings(max_examples=60, deadline=None)
@given(commands)
def test_cash_and_units_are_conserved(given_commands: list) -> None:
    with tempfile.TemporaryDirectory() as folder:
        play = Play(Path(folder))
        for name, *rest in given_commands:
            with suppress(RefusedError):
                getattr(play, name)(*rest)
            play.check()
        shown = held(play.exchange)
        play.exchange.journal.close()
        again = open_exchange(Path(folder))
        assert held(again) == shown
        again.journal.compact(again.snapshot())
        again.journal.close()
        compacted = open_exchange(Path(folder))
        assert held(compacted) == shown
        compacted.journal.close()


trades = st.lists(
    st.tuples(st.sampled_from(["BUY", "SELL"]), st.integers(1, 1_000_000), st.integers(1, 300)), max_size=30
)


@given(trades)
def test_what_a_position_realised_and_costs_is_what_was_paid(given_trades: list) -> None:
    position, realised, paid = Position("X", "MIS"), D(0), D(0)
    for side, paise, quantity in given_trades:
        at = D(paise) / 100
        realised += position.trade(side, at, D(quantity), 1)
        paid += (1 if side == "BUY" else -1) * at * quantity
        assert position.cost - realised == paid
        assert (position.units > 0) == (position.cost > 0)
        assert (position.units == 0) <= (position.cost == 0)


def test_a_day_begins_at_midnight_in_india() -> None:
    midnight = 1_793_212_200_000  # 2026-10-28 18:30 UTC, which is midnight in India
    assert day_of(midnight) == day_of(midnight - 1) + 1
