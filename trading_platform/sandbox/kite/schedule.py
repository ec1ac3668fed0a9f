"""What the clock does at the broker: validities that run out, square-off, the closing auction, settlement, the day's bill.

`after_step` looks at market time after every step; each of these happens once its time has come, and only once.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo

from trading_platform.markets.contract_note import Leg, auto_square_off_charge, charges_of, segment_for
from trading_platform.markets.contracts import Contract, ContractBook
from trading_platform.markets.effective import Effective, RuleTable, load
from trading_platform.markets.market_halts import MarketHalt, MarketState
from trading_platform.markets.sessions import Phase
from trading_platform.sandbox.books import Account
from trading_platform.sandbox.events import Kept, OfAccount, Paid, Settled
from trading_platform.sandbox.exchange import Exchange
from trading_platform.sandbox.kite.bands import IN_CLOSING_AUCTION, Bands
from trading_platform.sandbox.kite.desk import Desk
from trading_platform.sandbox.margin_ledger import DAY_MS, IST_MS, day_of
from trading_platform.sandbox.orders import Order, Side
from trading_platform.sandbox.rules import RefusedError

IST = ZoneInfo("Asia/Kolkata")
INTRADAY = frozenset({"MIS", "CO"})
AUCTION_ENDS = time(15)
KINDS = {"NFO": "derivatives", "BFO": "derivatives", "CDS": "currency", "BCD": "currency"}
EPOCH = date(1970, 1, 1)
OVER = frozenset({Phase.CLOSED, Phase.POST_CLOSE})
MINUTE_MS = 60_000


class SquareOffRow(Effective):
    kind: str
    at: time


@dataclass
class Schedule:
    """Of one exchange. Times of rules are IST."""

    exchange: Exchange
    book: ContractBook
    bands: Bands
    desk: Desk
    halt: MarketHalt | None = None
    halted_by_hand: datetime | None = None
    _day: int = -1
    _matched: set[tuple[str, int]] = field(default_factory=set)
    _crossed: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.exchange.pauses = self.pauses

    def after_step(self) -> None:
        now = self.bands.now.astimezone(IST)
        if (today := day_of(self.exchange.now)) != self._day:
            self._begin_day(today)
        self._watch_indices()
        self._hand_over_stops()
        self._end_validities()
        self._closing_auctions(now)
        self._auctions(now)
        self._square_off(now)
        self._end_session()
        self._settle(now)
        self._bill(today)
        self.bands.impose()

    def pauses(self, symbol: str, time_ms: int) -> bool:
        """Whether a bar that ends then trades with nobody: a halt, or the closing auction of a share that has one."""
        self.look_at_halt()
        if self.desk.halted:
            return True
        contract = self.desk.contracts.get(symbol)
        if contract is None or not self.bands.has_closing_auction(contract):
            return False
        last_moment = datetime.fromtimestamp((time_ms - 1) / 1_000, IST)
        return self.bands.phase(contract, last_moment).phase in IN_CLOSING_AUCTION

    # --- the day -----------------------------------------------------------------------------------------------------

    def _begin_day(self, today: int) -> None:
        self._day = today
        self.desk.flat.clear()
        midnight, closes = today * DAY_MS - IST_MS, {}
        for contract in self.book:
            if contract.is_index:
                before = self.exchange.candles[contract.tradingsymbol].between(None, midnight - 1, 1)
                if before:
                    closes[contract.tradingsymbol] = Decimal(repr(before[-1][4]))
        self.halt = MarketHalt.of_day(closes)
        self.look_at_halt()

    def _watch_indices(self) -> None:
        if self.halt is None:
            return
        for index in self.halt.previous_closes:
            candles = self.exchange.candles[index]
            if candles and day_of(candles.row(len(candles) - 1)[0]) == self._day:
                self.halt = self.halt.on_index(index, Decimal(repr(candles.row(len(candles) - 1)[4])), self.bands.now)
        self.look_at_halt()

    def look_at_halt(self) -> None:
        now = self.bands.now
        if self.halted_by_hand is not None and now >= self.halted_by_hand:
            self.halted_by_hand = None
        if self.halted_by_hand is not None:
            self.desk.halted = f"halted by hand until {self.halted_by_hand.astimezone(IST):%H:%M:%S}"
            return
        self.halt = self.halt.at(now) if self.halt else None
        stands = self.halt is not None and self.halt.state in (MarketState.HALTED, MarketState.PRE_OPEN, MarketState.CLOSED)  # fmt: skip
        self.desk.halted = self.halt.why if stands and self.halt else ""

    def _open_orders(self) -> Iterator[Order]:
        """Open orders that came through this door."""
        for account in self.exchange.books.accounts.values():
            for order in list(account.open.values()):
                if "variety" in order.request.terms:
                    yield order

    def _hand_over_stops(self) -> None:
        """After-market stops go to the exchange with the opening, and wait there for their trigger."""
        waiting = [
            order for order in self._open_orders()
            if order.request.at_open and order.request.stop_price is not None and order.working_since is None
            and self.bands.phase(self.desk.contracts[order.symbol]).phase is Phase.CONTINUOUS
        ]  # fmt: skip
        if waiting:
            self.exchange.hand_over(waiting)

    def _end_validities(self) -> None:
        now = self.exchange.now
        over = [
            order for order in self._open_orders()
            if order.request.terms["validity"] == "TTL"
            and now >= order.time + int(order.request.terms["validity_ttl"]) * MINUTE_MS
        ]  # fmt: skip
        if over:
            self.exchange.expire_orders(over, "TTL_OVER")

    def _end_session(self) -> None:
        """Orders of the day end with it; those placed after the market wait for the next open."""
        ended = []
        for order in self._open_orders():
            waits_for_open = order.request.at_open and order.working_since is None
            if not waits_for_open and self.bands.phase(self.desk.contracts[order.symbol]).phase in OVER:
                ended.append(order)
        if ended:
            self.exchange.expire_orders(ended, "DAY_OVER")

    # --- auctions ----------------------------------------------------------------------------------------------------

    def _closing_auctions(self, now: datetime) -> None:
        """At the end of entry: stops and other orders that an auction does not carry; at its match: one price for all."""
        symbols = {order.symbol for order in self._open_orders()}
        for symbol in symbols:
            contract = self.desk.contracts[symbol]
            if not self.bands.has_closing_auction(contract):
                continue
            phase = self.bands.phase(contract).phase
            orders = [order for order in self._open_orders() if order.symbol == symbol and not order.request.at_open]
            if phase in IN_CLOSING_AUCTION:
                self.exchange.expire_orders(
                    [each for each in orders if _not_for_auctions(each)], "NOT_CARRIED_INTO_AUCTION"
                )
            if phase is Phase.CAS_MATCH or (phase in OVER and now.time() >= AUCTION_ENDS):
                self._match_closing(contract, [order for order in orders if order.is_open])

    def _match_closing(self, contract: Contract, orders: list[Order]) -> None:
        key = (contract.tradingsymbol, self._day)
        if key in self._matched or self.bands.phase(contract, self._at(time(15, 21))).phase not in IN_CLOSING_AUCTION:
            return
        self._matched.add(key)
        price = self.bands.last(contract)
        if price is not None:
            self.exchange.auction(orders, price)

    def _auctions(self, now: datetime) -> None:
        """The exchange's auction of shares that were not delivered: over at 15:00, at the last price."""
        if now.time() < AUCTION_ENDS:
            return
        for order in self._open_orders():
            if order.request.terms["variety"] == "auction":
                price = self.bands.last(self.desk.contracts[order.symbol])
                self.exchange.auction([order], price or Decimal(0))

    # --- positions ---------------------------------------------------------------------------------------------------

    def _square_off(self, now: datetime) -> None:
        for exchange in ("NSE", "BSE", "NFO", "BFO"):
            if exchange not in self.desk.flat and now.time() >= (at := square_off_time(KINDS.get(exchange, "cash"), now.date())):  # fmt: skip
                self.desk.flat[exchange] = f"{at:%H:%M}"
        for account in list(self.exchange.books.accounts.values()):
            for position in list(account.positions.values()):
                if position.product in INTRADAY and position.units:
                    contract = self.desk.contracts[position.symbol]
                    auction = self.bands.has_closing_auction(contract)
                    kind = KINDS.get(contract.exchange, "closing_auction" if auction else "cash")
                    trading = self.bands.phase(contract).phase is Phase.CONTINUOUS
                    if trading and now.time() >= square_off_time(kind, now.date()):
                        self._close(account, contract, position.product, position.units)

    def _close(self, account: Account, contract: Contract, product: str, units: Decimal) -> None:
        """Cancel what is open in the position, then a market order of the broker's own, for a fee."""
        mine = [
            order for order in account.open.values()
            if order.symbol == contract.tradingsymbol and order.request.terms.get("product") == product
        ]  # fmt: skip
        self.exchange.cancel_orders(mine)
        side: Side = "SELL" if units > 0 else "BUY"
        request = self.desk.market_request(
            contract.exchange, contract.tradingsymbol, side, abs(units), product, by="RMS"
        )
        try:
            self.desk.send(account, request)
        except RefusedError:
            return  # nobody to trade with: at the next step again
        day = self.bands.now.astimezone(IST).date()
        fee = auto_square_off_charge(1, day).quantize(Decimal("0.01"))
        self.exchange.record(Paid(account.account_id, fee, "auto square-off", self.exchange.now))

    def _settle(self, now: datetime) -> None:
        """Contracts that have expired end at the price of what they are of."""
        events: list[OfAccount] = []
        for account in self.exchange.books.accounts.values():
            for position in account.positions.values():
                contract = self.desk.contracts.get(position.symbol)
                if contract is None or contract.expiry is None or not position.units:
                    continue
                over = self.bands.phase(contract).phase is Phase.CLOSED and now.time() >= AUCTION_ENDS
                if contract.expiry < now.date() or (contract.expiry == now.date() and over):
                    price = self.desk.settlement_price(contract)
                    events.append(
                        Settled(account.account_id, position.symbol, position.product, price, self.exchange.now)
                    )
        if events:
            self.exchange.record(*events)

    def _bill(self, today: int) -> None:
        """Charges of the days before today that have not been billed: what the contract note says."""
        for account in list(self.exchange.books.accounts.values()):
            billed = int(account.kept.get("billing", {}).get("until", {"day": -1})["day"])
            if billed >= today - 1 or not account.positions:
                continue
            for day in sorted({day_of(trade.time) for trade in account.trades if billed < day_of(trade.time) < today}):
                name = EPOCH + timedelta(days=day)
                amount = self._charges(account, day, name)
                self.exchange.record(
                    Paid(account.account_id, amount, f"charges of {name}", self.exchange.now),
                    Kept(account.account_id, "billing", "until", {"day": day}),
                )

    def _charges(self, account: Account, day: int, name: date) -> Decimal:
        legs: dict[tuple[str, str, str], dict[int, Leg]] = {}
        for trade in account.trades:
            if day_of(trade.time) == day and self.exchange.books.on_margin(trade.symbol):
                terms = self.exchange.books.orders[trade.order_id].request.terms
                contract = self.desk.contracts[trade.symbol]
                segment = segment_for(contract, terms["product"])
                orders = legs.setdefault((contract.exchange, segment, trade.symbol), {})
                before = orders.get(trade.order_id)
                quantity = int(trade.quantity) + (before.quantity if before else 0)
                value = trade.price * trade.quantity + (before.price * before.quantity if before else 0)
                side = "buy" if trade.side == "BUY" else "sell"
                orders[trade.order_id] = Leg(side, quantity, value / quantity)  # type: ignore[arg-type]
        notes = (
            charges_of(exchange, segment, list(orders.values()), name, rounding="contract_note")  # type: ignore[arg-type]
            for (exchange, segment, _), orders in legs.items()
        )
        return sum((note.total for note in notes), Decimal(0))

    def _at(self, clock: time) -> datetime:
        return datetime.combine(self.bands.now.astimezone(IST).date(), clock, IST)


def square_off_time(kind: str, day: date) -> time:
    """When the broker closes intraday positions, IST."""
    return _square_offs().at(kind, day).row.at


def _not_for_auctions(order: Order) -> bool:
    terms = order.request.terms
    return order.request.stop_price is not None or terms["validity"] == "IOC" or "disclosed_quantity" in terms


@cache
def _square_offs() -> RuleTable[SquareOffRow]:
    return load(Path(__file__).parent / "square_off.toml", "square_off", SquareOffRow, lambda row: row.kind)
