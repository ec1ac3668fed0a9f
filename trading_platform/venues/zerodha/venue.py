"""One Zerodha account behind the order door.

What is different here: there is no client order id, so an order is found by its tag, which is derived from ours and is the
same however often it is sent; and nothing ever proves within the day that an order did not arrive, so a lost answer stays
unknown until the order is found or a person has looked. A market order is sent with protection, and the broker shows it as
a limit order: it is recognised by its tag, contract, side and quantity alone.

Cash is told as if everything held were paid in full: what positions in futures cost is taken off the ledger, which the
premium of an option is on already, debited when it is bought and credited when it is sold. So cash plus holdings, of which
what is short counts against it, is the account's equity whatever is held.
"""

import asyncio
import base64
import hashlib
import re
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import structlog

from trading_platform.identifiers import AccountId, ClientOrderId, Symbol, TradeId, Venue, VenueOrderId
from trading_platform.markets.contract_note import Leg, charges_of, segment_for
from trading_platform.markets.contracts import BadDumpError, Contract, ContractBook, UnknownContractError
from trading_platform.markets.denials import Denial
from trading_platform.markets.instruments import Instrument, is_index
from trading_platform.markets.kite_orders import KiteOrder, Surroundings, variety_in_url
from trading_platform.markets.position_limits import BanList, check_ban
from trading_platform.markets.quantities import FreezeTable
from trading_platform.markets.sessions import (
    Phase,
    Segment,
    amo_window,
    is_trading_day,
    phase_at,
    session_of,
    square_off_at,
)
from trading_platform.venues.port import (
    Accepted,
    Ambiguous,
    AuthLost,
    AuthLostError,
    MarginTold,
    QueryFailedError,
    Refused,
    Result,
    Sending,
    Side,
    TopOfBook,
    VenueFill,
    Wanted,
)
from trading_platform.venues.route import Route, local_address
from trading_platform.venues.zerodha.costs import margin_told
from trading_platform.venues.zerodha.errors import as_result, meaning_of_rejection
from trading_platform.venues.zerodha.orders import Acknowledged, OrderDesk, denied
from trading_platform.venues.zerodha.quoted_bands import QuotedBands
from trading_platform.venues.zerodha.quotes import Quotes
from trading_platform.venues.zerodha.statuses import lifecycle_of, state_of
from trading_platform.venues.zerodha.transport import Failure, KiteTransport, Success

IST = ZoneInfo("Asia/Kolkata")
CURRENCY = "INR"
NOBODY = AccountId("")
TAG_PREFIX = "TP"
TAG_LENGTH = 20
BROKERS_OWN_PROTECTION = Decimal(-1)
ZERO = Decimal(0)
PAID_IN_FULL = frozenset({"CNC", "MTF"})
AFTER_CLOSE = timedelta(minutes=5)
BOOK_OF_THE_DAY = timedelta(hours=12)
LONGEST_CLOSURE_DAYS = 15
ROLL_DAYS = 1
"""A future is not entered on its last day."""
NAME_OF_INDEX = {"NIFTY 50": "NIFTY", "NIFTY BANK": "BANKNIFTY"}
"""Indices as quotes name them: as derivatives do."""
OURS_BUT_UNKNOWN = "tp_unknown_"
FREEZE_IN_WORDS = re.compile(r"higher than the maximum quantity of (?P<freeze>\d+)")
"""The broker has no list of freeze quantities; its refusal names the one that holds today."""
NO_CONTRACTS = ContractBook((), date.min)
_BOOKS: dict[str, ContractBook] = {}
"""The day's contracts by the broker's address: one table for all accounts, whichever of them has asked for it."""
_BANDS: defaultdict[str, QuotedBands] = defaultdict(QuotedBands)
"""Likewise what quotes said of price bands."""
log = structlog.get_logger(__name__)


class NotArmedError(PermissionError):
    """The real broker was asked for, for an account that its owner has not armed."""


def tag_of(client_order_id: str) -> str:
    """The tag under which an order of ours is at the broker: 20 capitals and digits, 90 bits of the id's hash.

    >>> tag_of("tp_0") == tag_of("tp_0") != tag_of("tp_1")
    True
    """
    digest = base64.b32encode(hashlib.sha256(client_order_id.encode()).digest()).decode()
    return TAG_PREFIX + digest[: TAG_LENGTH - len(TAG_PREFIX)]


@dataclass
class ZerodhaVenue:
    """`now` is the market's clock: it decides the day's rules, and whether an order goes out after the market."""

    transport: KiteTransport
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))
    armed: bool = False
    account_id: AccountId = NOBODY
    needs_login: bool = True
    bans: Mapping[date, BanList] = field(default_factory=dict)
    """F&O ban lists by day, as its engine read them last."""

    def __post_init__(self) -> None:
        host = urlsplit(self.transport.root).hostname or ""
        if host not in ("127.0.0.1", "localhost", "::1") and not self.armed:
            raise NotArmedError(
                "this account is not armed for live trading: its owner arms it by typed confirmation. Paper accounts "
                "trade on the sandbox (TP_SANDBOX_KITE_URL)."
            )
        self.route = Route("zerodha")
        self._names: dict[str, ClientOrderId] = {}
        self._freeze = FreezeTable()
        self.desk = OrderDesk(self.transport)

    # --- what there is to trade --------------------------------------------------------------------------------------

    async def instruments(self) -> Mapping[Symbol, Instrument]:
        content = await self.transport.download("/instruments")
        if isinstance(content, Failure):
            raise QueryFailedError(f"Zerodha sent no instruments: {content}")
        try:
            book = await asyncio.to_thread(ContractBook.from_csv, content, self.now().astimezone(IST).date())
        except BadDumpError as error:
            raise QueryFailedError(str(error)) from error
        self._book = book
        return {
            Symbol(each.tradingsymbol): Instrument(
                Venue("zerodha"), Symbol(each.tradingsymbol), each.tradingsymbol, CURRENCY, each.tick_size,
                Decimal(each.lot_size), Decimal(0),
            )
            for each in book
            if (each.exchange == "NSE" and not each.is_index)
            or (each.exchange == "NFO" and (each.is_future or each.name in NAME_OF_INDEX.values()))
        }  # fmt: skip

    def contract_for(self, symbol: Symbol, at: datetime) -> Symbol:
        if not is_index(symbol):
            return symbol
        try:
            name = NAME_OF_INDEX.get(symbol, symbol)
            return Symbol(self._book.future(name, at.astimezone(IST).date(), ROLL_DAYS).tradingsymbol)
        except UnknownContractError:
            return symbol  # which is not tradable, and refused as such

    def hedge_for(self, symbol: Symbol, at: datetime, level: Decimal) -> Symbol | None:
        """An index's alone. The nearest strike that is listed, where there is none at the level."""
        return self._option_near(level, "PE", symbol, at)

    def spread_for(self, symbol: Symbol, at: datetime, price: Decimal, level: Decimal) -> tuple[Symbol, Symbol] | None:
        """An index's alone, as `hedge_for`."""
        bought, sold = self._option_near(price, "CE", symbol, at), self._option_near(level, "CE", symbol, at)
        return None if bought is None or sold is None or bought == sold else (bought, sold)

    def _option_near(self, level: Decimal, kind: Literal["CE", "PE"], symbol: Symbol, at: datetime) -> Symbol | None:
        future = self.listed(self.contract_for(symbol, at))
        if future is None or future.expiry is None or not is_index(symbol):
            return None
        try:
            option = self._book.chain(future.name, future.expiry).by_moneyness(level, 0, kind)
        except UnknownContractError:
            return None
        return Symbol(option.tradingsymbol)

    def listed(self, contract: Symbol) -> Contract | None:
        try:
            return self._contract(contract)
        except UnknownContractError:
            return None

    async def measure_route(self) -> None:
        """The broker's clock from the Date of an answer (whole seconds), and the address that orders leave from."""
        asked = time.time()
        answer = await self.transport.clock()
        if isinstance(answer, Failure):
            raise QueryFailedError(f"Zerodha did not answer: {answer}")
        theirs = parsedate_to_datetime(answer).timestamp() + 0.5
        address = urlsplit(self.transport.root)
        source = self.transport.source_address or await asyncio.to_thread(
            local_address, address.hostname or "", address.port or 443
        )
        self.route = Route("zerodha", source, round((theirs - (asked + time.time()) / 2) * 1_000, 3))

    # --- orders ------------------------------------------------------------------------------------------------------

    def place_market(
        self, client_order_id: ClientOrderId, contract: Symbol, side: Side, quantity: Decimal, issued_at: datetime, *,
        reducing: bool = False,
    ) -> Sending:  # fmt: skip
        return Sending(partial(self._place, client_order_id, contract, side, quantity, {}, reducing=reducing))

    def place_stop(
        self, client_order_id: ClientOrderId, contract: Symbol, side: Side, quantity: Decimal, trigger: Decimal,
        limit: Decimal, issued_at: datetime,
    ) -> Sending:  # fmt: skip
        terms = {"order_type": "SL", "market_protection": None, "trigger_price": trigger, "price": limit}
        return Sending(partial(self._place, client_order_id, contract, side, quantity, terms, reducing=True))

    async def _place(
        self, client_order_id: ClientOrderId, contract: Symbol, side: Side, quantity: Decimal, terms: Mapping[str, Any], *,
        reducing: bool,
    ) -> Result:  # fmt: skip
        """`terms`: what is otherwise than in a market order."""
        tag = tag_of(client_order_id)
        self._names[tag] = client_order_id
        made = self._order_of(contract, side, quantity, tag)
        if isinstance(made, Denial):
            return Refused(made.code, str(made))
        order, around = replace(made[0], **terms), made[1]
        if denial := denied(order, around):
            return Refused(denial.code, str(denial))
        result = await self.place(order, reducing=reducing)
        if isinstance(result, Refused) and (found := FREEZE_IN_WORDS.search(result.text)):
            self._freeze.learn(around.contract.name, int(found["freeze"]))
        return result

    def forbids(self, contract: Symbol, side: Side, quantity: Decimal, *, reducing: bool) -> Denial | None:
        """Session, lot, freeze quantity and order rules; for what is new, its price band as last quoted, and in a share's
        derivatives the ban list.

        Without the day's list only indices' derivatives are entered: a missing list is no empty one.
        """
        made = self._order_of(contract, side, quantity, None)
        if isinstance(made, Denial):
            return made
        order, around = made
        if denial := denied(order, around):
            return denial
        if not reducing and (denial := _BANDS[self.transport.root].forbids_entry(contract, side, around.now)):
            return denial
        day = around.now.astimezone(IST).date()
        after = ZERO if reducing else quantity
        return check_ban(around.contract, self.bans.get(day), day, before=quantity if reducing else ZERO, after=after)

    def square_off(self, contract: Symbol, at: datetime) -> datetime | None:
        traded, day = self.listed(contract), at.astimezone(IST).date()
        if traded is None or not is_trading_day(_segment_of(traded), day):
            return None
        return square_off_at(_segment_of(traded), day, closing_auction=self._has_auction(traded))

    def largest_order(self, contract: Symbol) -> Decimal | None:
        traded = self.listed(contract)
        largest = self._freeze.max_order(traded, self.now().astimezone(IST).date()) if traded is not None else None
        return Decimal(largest) if largest else None

    def _order_of(
        self, contract: Symbol, side: Side, quantity: Decimal, tag: str | None
    ) -> tuple[KiteOrder, Surroundings] | Denial:
        """A market order as the broker takes it now, and what it is judged by."""
        try:
            traded = self._contract(contract)
        except UnknownContractError as error:
            return Denial("INSTRUMENT_UNKNOWN", str(error))
        if quantity != int(quantity):
            return Denial("QUANTITY_LOT", f"{contract} is traded in whole units, not {quantity}")
        now = self.now()
        order = KiteOrder(
            traded.exchange, traded.tradingsymbol, "BUY" if side == "buy" else "SELL", int(quantity),
            "NRML" if traded.is_derivative else "CNC", "MARKET",
            variety="amo" if amo_window(_segment_of(traded), now) else "regular",
            market_protection=BROKERS_OWN_PROTECTION, tag=tag,
        )  # fmt: skip
        return order, Surroundings(traded, now, closing_auction=self._has_auction(traded), freeze=self._freeze)

    def _has_auction(self, traded: Contract) -> bool:
        """Shares that futures are traded on close by auction."""
        return not traded.is_derivative and bool(self._book.futures(traded.tradingsymbol))

    def takes_stops(self, contract: Symbol) -> bool:
        """In continuous trading, and overnight as after-market orders; opening and closing auctions take none."""
        try:
            traded = self._contract(contract)
        except UnknownContractError:
            return True  # its refusal says more than silence
        segment, now = _segment_of(traded), self.now()
        span = phase_at(segment, now, closing_auction=self._has_auction(traded))
        return amo_window(segment, now) or "SL" in span.order_types

    async def cancel(self, client_order_id: ClientOrderId, contract: Symbol) -> Result:
        tag = tag_of(client_order_id)
        try:
            rows = [row for row in await self._ask("/orders") if row.get("tag") == tag]
        except QueryFailedError as error:
            return Ambiguous(str(error))
        open_rows = [row for row in rows if state_of(row) in ("WORKING", "PARTIALLY_FILLED")]
        if not open_rows:
            return Refused("NOTHING_TO_CANCEL", f"no order of {client_order_id} works at the broker")
        row = open_rows[-1]
        released = row["variety"] == "amo" and row["status"] != "AMO REQ RECEIVED"
        order_id = VenueOrderId(str(row["order_id"]))
        answer = await self.desk.cancel(order_id, variety_in_url(row["variety"], released))
        if not isinstance(answer, Acknowledged):
            return answer
        try:
            return await self._order(order_id)
        except QueryFailedError as error:
            return Ambiguous(str(error))

    async def place(self, order: KiteOrder, *, reducing: bool) -> Result:
        """Send an order that has passed `check`. Never raises for what the broker or the network does."""
        sent = await self.desk.place(order, reducing=reducing)
        if not isinstance(sent, Acknowledged):
            return sent
        order_id = sent.order_id
        try:
            return await self._order(order_id)
        except QueryFailedError:
            return Accepted(order_id, "WORKING", Decimal(0), (), complete=False)

    async def find_order(self, client_order_id: ClientOrderId, contract: Symbol) -> Accepted | None:
        tag = tag_of(client_order_id)
        self._names[tag] = client_order_id
        rows = await self._ask("/orders")
        mine = [row for row in rows if row.get("tag") == tag or tag in (row.get("tags") or ())]
        if not mine:
            return None
        if len(mine) > 1:  # which must not be: the tag is of one attempt
            log.error("two_orders_of_one_tag", tag=tag, orders=[row.get("order_id") for row in mine])
        filled_first = sorted(mine, key=lambda row: int(row.get("filled_quantity") or 0))
        return await self._accepted(filled_first[-1])

    def proves_absence(self, contract: Symbol, issued_at: datetime, market_sent_at: datetime) -> bool:
        """Within the day nothing does. After the session that the order was sent in or for, the day's book is whole, and
        says so for half a day; later it is another day's book, and a person has to look."""
        try:
            segment = _segment_of(self._contract(contract))
        except UnknownContractError:
            return False
        closed = _session_over(segment, market_sent_at)
        return closed is not None and closed <= self.now() < closed + BOOK_OF_THE_DAY

    async def balances(self) -> Mapping[str, Decimal]:
        margins, positions, holdings, orders = await asyncio.gather(
            self._ask("/user/margins"), self._ask("/portfolio/positions"), self._ask("/portfolio/holdings"),
            self._ask("/orders"),
        )  # fmt: skip
        try:
            return _balances(margins["equity"], positions["net"], holdings, orders)
        except (KeyError, TypeError, ArithmeticError) as error:
            raise QueryFailedError(f"Zerodha's books cannot be read: {error!r}") from error

    async def books(self, contracts: Collection[Symbol]) -> Mapping[Symbol, TopOfBook]:
        now, named = self.now(), {}
        for contract in contracts:
            traded = self._contract(contract)
            if phase_at(_segment_of(traded), now, closing_auction=self._has_auction(traded)).phase is Phase.CONTINUOUS:
                named[f"{traded.exchange}:{traded.tradingsymbol}"] = contract
        quotes = await Quotes(self.transport).full(sorted(named))
        for name, quote in quotes.items():
            _BANDS[self.transport.root].heard(named[name], quote, now)
        return {named[name]: quote.top for name, quote in quotes.items()}

    async def margin(self, orders: Sequence[Wanted], *, sets: bool) -> MarginTold:
        asked = []
        for each in orders:
            made = self._order_of(each.contract, each.side, each.quantity, None)
            if isinstance(made, Denial):
                raise QueryFailedError(f"no margin can be asked for {each.contract}: {made}")
            asked.append(made[0])
        return await margin_told(self.transport, asked, sets=sets)

    async def open_client_order_ids(self, contracts: Collection[Symbol] | None = None) -> set[str]:
        working = [row for row in await self._ask("/orders") if state_of(row) in ("WORKING", "PARTIALLY_FILLED")]
        tags = [str(row.get("tag") or row["order_id"]) for row in working]
        return {self._names.get(tag, OURS_BUT_UNKNOWN + tag if tag.startswith(TAG_PREFIX) else tag) for tag in tags}

    async def close(self) -> None:
        await self.transport.close()

    # --- inside ------------------------------------------------------------------------------------------------------

    @property
    def _book(self) -> ContractBook:
        return _BOOKS.get(self.transport.root, NO_CONTRACTS)

    @_book.setter
    def _book(self, book: ContractBook) -> None:
        _BOOKS[self.transport.root] = book

    def _contract(self, name: Symbol) -> Contract:
        for exchange in ("NSE", "NFO"):
            try:
                return self._book.get(exchange, name)
            except UnknownContractError:
                continue
        raise UnknownContractError(f"{name} is in today's instruments of neither NSE nor NFO")

    async def _order(self, order_id: VenueOrderId) -> Accepted:
        history = await self._ask(f"/orders/{order_id}")
        return await self._accepted(history[-1] | {"order_id": order_id})

    async def _accepted(self, row: Mapping[str, Any]) -> Accepted:
        """An order of the book with its trades; a refusal after acceptance is an order that ended with nothing."""
        try:
            order_id, filled = VenueOrderId(str(row["order_id"])), Decimal(str(row["filled_quantity"] or 0))
            state = state_of(row)
            trades = await self._ask(f"/orders/{order_id}/trades") if filled else []
            fills = self._fills(row, trades)
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise QueryFailedError(f"an order of Zerodha's book cannot be read: {error!r}") from error
        complete = sum((fill.quantity for fill in fills), Decimal(0)) == filled
        return Accepted(order_id, state, filled, fills, complete)

    def _fills(self, row: Mapping[str, Any], trades: Sequence[Mapping[str, Any]]) -> list[VenueFill]:
        """Trades with the charges that each adds to its order: brokerage is of the order, so it is shared in order."""
        contract = self._contract(Symbol(str(row["tradingsymbol"])))
        segment = segment_for(contract, str(row["product"]))
        side: Side = "buy" if row["transaction_type"] == "BUY" else "sell"
        fills, quantity, value, charged = [], 0, Decimal(0), Decimal(0)
        for trade in sorted(trades, key=lambda each: (str(each["fill_timestamp"]), str(each["trade_id"]))):
            at = _ist(str(trade["fill_timestamp"]))
            price, traded = Decimal(str(trade["average_price"])), int(trade["quantity"])
            quantity, value = quantity + traded, value + traded * price
            note = charges_of(
                contract.exchange, segment, [Leg(side, quantity, value / quantity)], at.astimezone(IST).date()
            )
            total = note.total.quantize(Decimal("0.000001"))
            # The exchange's trade numbers begin anew every day.
            name = TradeId(f"{at.astimezone(IST):%Y%m%d}-{trade['trade_id']}")
            fills.append(VenueFill(name, price, Decimal(traded), total - charged, CURRENCY, at))
            charged = total
        return fills

    async def _ask(self, path: str) -> Any:
        answer = await self.transport.call("GET", path)
        if isinstance(answer, Success):
            return answer.data
        if isinstance(as_result(answer, "read"), AuthLost):
            raise AuthLostError(self.account_id, str(answer))
        raise QueryFailedError(f"Zerodha did not answer {path}: {answer}")


def _segment_of(traded: Contract) -> Segment:
    return "NFO" if traded.is_derivative else "NSE"


def _session_over(segment: Segment, sent_at: datetime) -> datetime | None:
    """When the session of an order that was sent then is over, for certain; None beyond the known calendar.

    What goes out between the close and the opening of the after-market window is of the day that closed: nothing takes it.
    """
    day = sent_at.astimezone(IST).date()
    for offset in range(LONGEST_CLOSURE_DAYS):
        spans = session_of(segment, day + timedelta(days=offset))
        if spans and (sent_at < spans[-1].ends or not amo_window(segment, sent_at)):
            return max(spans[-1].ends, sent_at) + AFTER_CLOSE
    return None


def rejection(row: Mapping[str, Any]) -> Refused:
    """Why an order of the book was rejected."""
    meaning = meaning_of_rejection(row.get("status_message"), row.get("status_message_raw"))
    return Refused(meaning.code, str(row.get("status_message_raw") or row.get("status_message") or "no reason given"))


def _balances(
    equity: Mapping[str, Any], positions: Sequence[Mapping[str, Any]], holdings: Sequence[Mapping[str, Any]],
    orders: Sequence[Mapping[str, Any]],
) -> dict[str, Decimal]:  # fmt: skip
    """{INR: cash as if all were paid in full, tradingsymbol: units held}.

    What is blocked is ours still: margins, and for purchases into delivery that rest the price of what is left of them.
    """
    used = equity["utilised"]
    cash = sum(
        (Decimal(str(each)) for each in (equity["available"]["live_balance"], used["span"], used["exposure"])),
        Decimal(0),
    ) + sum((_blocked(row) for row in orders), Decimal(0))
    found: dict[str, Decimal] = {}
    for row in positions:
        units = Decimal(str(row["quantity"]))
        if row["product"] != "CNC" and not _is_option(row):
            cash -= units * Decimal(str(row["average_price"]))
        found[row["tradingsymbol"]] = found.get(row["tradingsymbol"], Decimal(0)) + units
    for row in holdings:
        units = Decimal(str(row["quantity"])) + Decimal(str(row.get("t1_quantity") or 0))
        found[row["tradingsymbol"]] = found.get(row["tradingsymbol"], Decimal(0)) + units
    return found | {CURRENCY: cash}


def _is_option(row: Mapping[str, Any]) -> bool:
    return row["exchange"] in ("NFO", "BFO") and str(row["tradingsymbol"]).endswith(("CE", "PE"))


def _blocked(row: Mapping[str, Any]) -> Decimal:
    """What a resting purchase into delivery blocks; for derivatives that is within the margins."""
    if lifecycle_of(row).ended or row["transaction_type"] != "BUY" or row["product"] not in PAID_IN_FULL:
        return Decimal(0)
    left = int(row["quantity"]) - int(row.get("filled_quantity") or 0)
    return left * Decimal(str(row["price"] or row["trigger_price"] or 0))


def _ist(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=IST).astimezone(UTC)
