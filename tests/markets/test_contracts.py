"""Instruments as the broker's own dump lists them, and quantities and prices that an order may have."""

import gzip
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_platform.markets.contracts import (
    BadDumpError,
    Contract,
    ContractBook,
    UnknownContractError,
    parse_symbol,
    segment_of,
)
from trading_platform.markets.effective import NoRuleError
from trading_platform.markets.quantities import FreezeTable
from trading_platform.markets.ticks import check_tick, round_price, tick_by_price

D = Decimal
DAY = date(2026, 11, 23)
HEADER = (
    "instrument_token,exchange_token,tradingsymbol,name,last_price,expiry,strike,tick_size,lot_size,instrument_type,"
    "segment,exchange"
)


def option(strike: int, kind: str, expiry: str = "2026-11-23", name: str = "NIFTY", lot: int = 65) -> str:
    token = strike * 256 + 2 + (kind == "PE") * 2560000
    return f"{token},{strike},{name}26NOV{strike}{kind},{name},0.0,{expiry},{strike}.0,0.05,{lot},{kind},NFO-OPT,NFO"


def future(expiry: str, token: int, name: str = "NIFTY", lot: int = 65) -> str:
    return f"{token},1,{name}{expiry}FUT,{name},0.0,{expiry},0.0,0.10,{lot},FUT,NFO-FUT,NFO"


def book(*lines: str) -> ContractBook:
    return ContractBook.from_csv("\n".join([HEADER, *lines]).encode(), DAY)


def contract(name: str, lot: int) -> Contract:
    return next(iter(book(future("2026-11-23", 2, name, lot))))


def test_the_official_dump_is_read_and_written_again(kite_mocks: Path) -> None:
    data = (kite_mocks / "instruments_all.csv").read_bytes()
    dump = ContractBook.from_csv(data, DAY)
    assert len(dump) == len(data.decode().strip().splitlines()) - 1
    assert {each.instrument_type for each in dump} == {"EQ", "CE", "PE"}
    assert all(segment_of(each.instrument_token) == each.exchange for each in dump)
    again = ContractBook.from_csv(dump.to_csv(), DAY)
    assert [*again] == [*dump]
    assert dump.to_csv().splitlines()[0] == data.splitlines()[0]


def test_official_option_symbols_are_parsed_as_their_rows_say(kite_mocks: Path) -> None:
    dump = ContractBook.from_csv((kite_mocks / "instruments_all.csv").read_bytes(), DAY)
    options = [each for each in dump if each.is_option]
    assert options
    for each in options:
        parts = parse_symbol(each.tradingsymbol)
        assert parts is not None, each.tradingsymbol
        assert each.expiry is not None
        assert (parts.strike, parts.kind) == (each.strike, each.instrument_type)
        assert (parts.year, parts.month) == (each.expiry.year, each.expiry.month)
        assert parts.day in (None, each.expiry.day)


@pytest.mark.parametrize(
    ("symbol", "parts"),
    [
        ("NIFTY2580724400CE", ("NIFTY", 2025, 8, 7, D(24400), "CE")),
        ("NIFTY26O2024400PE", ("NIFTY", 2026, 10, 20, D(24400), "PE")),
        ("NIFTY26NOVFUT", ("NIFTY", 2026, 11, None, None, "FUT")),
        ("BAJAJ-AUTO26NOV9000CE", ("BAJAJ-AUTO", 2026, 11, None, D(9000), "CE")),
        ("M&M26NOV2912.5CE", ("M&M", 2026, 11, None, D("2912.5"), "CE")),
    ],
)
def test_symbols(symbol: str, parts: tuple[Any, ...]) -> None:
    found = parse_symbol(symbol)
    assert found is not None
    assert (found.name, found.year, found.month, found.day, found.strike, found.kind) == parts


def test_a_share_s_symbol_is_no_derivative() -> None:
    assert parse_symbol("INFY") is None
    assert parse_symbol("NIFTY 50") is None


def test_chain_and_moneyness() -> None:
    dump = book(*(option(strike, kind) for strike in range(25_700, 26_301, 100) for kind in ("CE", "PE")))
    chain = dump.chain("NIFTY", date(2026, 11, 23))
    assert chain.strikes[0] == 25_700
    assert chain.at_the_money(D("26049.99")) == 26_000
    assert chain.at_the_money(D(26_050)) == 26_000, "the lower one of two that are as near"
    assert chain.by_moneyness(D(26_010), 2, "CE").strike == 26_200
    assert chain.by_moneyness(D(26_010), 2, "PE").strike == 25_800
    assert chain.by_moneyness(D(26_010), -1, "CE").strike == 25_900
    with pytest.raises(UnknownContractError, match="beyond the listed strikes"):
        chain.by_moneyness(D(26_010), 5, "CE")


def test_the_nearest_future_rolls() -> None:
    dump = book(future("2026-11-23", 2), future("2026-12-29", 258), future("2027-01-26", 514))
    assert dump.future("NIFTY", date(2026, 11, 23)).expiry == date(2026, 11, 23)
    assert dump.future("NIFTY", date(2026, 11, 23), roll_days=1).expiry == date(2026, 12, 29)
    assert dump.next_expiry("NIFTY", date(2026, 11, 24), kind="FUT") == date(2026, 12, 29)
    with pytest.raises(UnknownContractError):
        dump.future("NIFTY", date(2027, 2, 1))


def test_what_is_not_there_is_named() -> None:
    dump = book(option(26_000, "CE"))
    with pytest.raises(UnknownContractError, match="NSE:INFY"):
        dump.get("NSE", "INFY")
    with pytest.raises(BadDumpError, match="lacks"):
        ContractBook.from_csv(b"a,b\n1,2\n", DAY)
    with pytest.raises(BadDumpError, match="line 2"):
        book(option(26_000, "CE").replace(",65,", ",many,"))


@pytest.mark.parametrize(
    ("token", "segment"), [(408065, "NSE"), (256 * 7 + 9, "INDICES"), (256 * 7 + 3, "CDS"), (256 * 7 + 12, "NCO")]
)
def test_a_token_says_its_segment(token: int, segment: str) -> None:
    assert segment_of(token) == segment


def test_the_largest_orders_of_the_specification(vectors: dict[str, Any]) -> None:
    day = date.fromisoformat(vectors["freeze_max_order"].pop("as_of", "2026-08-03"))
    for name, known in vectors["freeze_max_order"].items():
        assert FreezeTable().freeze(contract(name, known["lot"]), day) == known["freeze"]
        assert FreezeTable().max_order(contract(name, known["lot"]), day) == known["max"]


@settings(max_examples=100)
@given(st.sampled_from([("NIFTY", 65), ("BANKNIFTY", 30), ("MIDCPNIFTY", 120), ("UNHEARD", 40)]), st.integers(1, 400))
def test_slices_sum_up_within_the_freeze(which: tuple[str, int], lots: int) -> None:
    name, lot = which
    table, traded = FreezeTable(), contract(name, lot)
    slices = table.slices(lots * lot, traded, DAY)
    assert sum(slices) == lots * lot
    assert all(each > 0 and each % lot == 0 for each in slices)
    freeze = table.freeze(traded, DAY)
    assert freeze is None or max(slices) <= freeze


def test_a_freeze_is_learnt_from_a_refusal() -> None:
    table, traded = FreezeTable(), contract("UNHEARD", 40)
    assert table.check(4000, traded, DAY) is None
    table.learn("UNHEARD", 1000)
    denial = table.check(1040, traded, DAY)
    assert denial is not None
    assert (denial.code, denial.nearest) == ("QUANTITY_FREEZE", 1000)
    assert table.check(1000, traded, DAY) is None


@pytest.mark.parametrize(("quantity", "nearest"), [(64, 65), (66, 65), (0, 65), (-65, 65), (131, 130)])
def test_a_lot_is_a_lot(quantity: int, nearest: int) -> None:
    denial = FreezeTable().check(quantity, contract("NIFTY", 65), DAY)
    assert denial is not None
    assert (denial.code, denial.nearest) == ("QUANTITY_LOT", nearest)


@pytest.mark.parametrize(
    ("kind", "price", "tick"),
    [
        ("share", "249.99", "0.01"), ("share", "250", "0.05"), ("share", "1000", "0.05"), ("share", "1000.05", "0.10"),
        ("share", "5000", "0.10"), ("share", "5000.1", "0.50"), ("share", "10000", "0.50"), ("share", "20000", "1.00"),
        ("share", "20001", "5.00"), ("index_future", "15000", "0.05"), ("index_future", "15000.05", "0.10"),
        ("index_future", "30000.1", "0.20"), ("option", "812", "0.05"),
    ],
)  # fmt: skip
def test_price_steps_by_price(kind: Any, price: str, tick: str) -> None:
    assert tick_by_price(kind, D(price), DAY) == (D(tick), False)


@pytest.mark.parametrize(
    ("day", "price", "tick"),
    [
        (date(2021, 3, 1), "100", "0.05"), (date(2024, 6, 9), "100", "0.05"), (date(2024, 6, 10), "100", "0.01"),
        (date(2025, 4, 14), "1500", "0.05"), (date(2025, 4, 15), "1500", "0.10"),
    ],
)  # fmt: skip
def test_price_steps_of_shares_changed_twice(day: date, price: str, tick: str) -> None:
    assert tick_by_price("share", D(price), day) == (D(tick), False)


def test_a_price_step_older_than_its_table_says_so() -> None:
    assert tick_by_price("index_future", D(14_000), date(2021, 3, 1)).rules_backdated
    with pytest.raises(NoRuleError, match="positive"):
        tick_by_price("share", D(0), DAY)


@settings(max_examples=100)
@given(st.decimals("0.01", "99999", places=3), st.sampled_from([D("0.01"), D("0.05"), D("0.1"), D("0.5"), D(5)]))
def test_rounding_is_exact_and_next_to_the_price(price: Decimal, tick: Decimal) -> None:
    down, up, near = (round_price(price, tick, toward) for toward in ("down", "up", "nearest"))  # type: ignore[arg-type]
    assert down <= price <= up
    assert up - down in (0, tick)
    assert down % tick == up % tick == near % tick == 0
    assert abs(near - price) <= tick / 2


def test_a_price_off_the_tick_names_the_nearest() -> None:
    traded = contract("NIFTY", 65)
    denial = check_tick(D("26000.13"), traded)
    assert denial is not None
    assert (denial.code, denial.nearest) == ("PRICE_TICK", D("26000.10"))
    assert check_tick(D("26000.10"), traded) is None


def test_an_index_of_the_dump_is_refused_by_name() -> None:
    """The broker lists indices with a lot and a tick of 0."""
    level = next(iter(book("256265,1001,NIFTY 50,NIFTY 50,0,,0,0,0,EQ,INDICES,NSE")))
    assert level.is_index
    for denial in (check_tick(D(25_000), level), FreezeTable().check(1, level, DAY)):
        assert denial is not None
        assert denial.code == "INSTRUMENT_UNTRADABLE"
    with pytest.raises(ValueError, match="INSTRUMENT_UNTRADABLE"):
        FreezeTable().slices(1, level, DAY)


def test_a_lot_above_the_freeze_is_no_order() -> None:
    table, traded = FreezeTable({"UNHEARD": 30}), contract("UNHEARD", 40)
    denial = table.check(40, traded, DAY)
    assert denial is not None
    assert denial.code == "QUANTITY_FREEZE"
    with pytest.raises(ValueError, match="out of date"):
        table.slices(40, traded, DAY)


def test_a_dump_that_is_still_zipped_is_named() -> None:
    with pytest.raises(BadDumpError, match="unzip"):
        ContractBook.from_csv(gzip.compress(HEADER.encode()), DAY)
