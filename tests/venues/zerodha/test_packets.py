"""Binary frames against the official parser, the official samples, and anything that is no frame."""

import base64
import contextlib
import os
import struct
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kiteconnect import KiteTicker

from tests.conftest import SHARED
from trading_platform.venues.zerodha.packets import BadFrameError, decode, divisors, split, ticks, values

D = Decimal
MOCKS = SHARED / "kite-mocks"
LENGTHS = (8, 28, 32, 44, 184)


def official(frame: bytes) -> list[dict[str, Any]]:
    """The official client's own parser, without its connection."""
    parser = SimpleNamespace(
        _split_packets=lambda data: KiteTicker._split_packets(parser, data),
        _unpack_int=lambda data, start, end, byte_format="I": KiteTicker._unpack_int(
            parser, data, start, end, byte_format
        ),
        EXCHANGE_MAP=KiteTicker.EXCHANGE_MAP, MODE_FULL=KiteTicker.MODE_FULL, MODE_QUOTE=KiteTicker.MODE_QUOTE,
        MODE_LTP=KiteTicker.MODE_LTP,
    )  # fmt: skip
    return list(KiteTicker._parse_binary(parser, frame))


def framed(*packets: bytes) -> bytes:
    return struct.pack(">H", len(packets)) + b"".join(struct.pack(">H", len(each)) + each for each in packets)


def packet(name: str) -> bytes:
    if not MOCKS.exists():
        pytest.skip("the folder ../shared/kite-mocks is not here")
    return base64.b64decode((MOCKS / name).read_bytes())


def test_the_official_full_packet() -> None:
    (tick,) = ticks(framed(packet("ticker_full.packet")))
    assert (tick.instrument_token, tick.mode, tick.tradable) == (408065, "full", True)
    assert (tick.last_price, tick.last_quantity, tick.average_price) == (D("1573.7"), 7, D("1570.37"))
    assert (tick.volume, tick.buy_quantity, tick.sell_quantity) == (1192471, 256443, 363009)
    assert (tick.open, tick.high, tick.low, tick.close) == (D("1569.15"), D(1575), D("1561.05"), D("1567.8"))
    assert tick.exchange_at == datetime(2021, 7, 5, 10, 41, 27, tzinfo=ZoneInfo("Asia/Kolkata"))
    assert (tick.bids[0].quantity, tick.bids[0].price, tick.bids[0].orders) == (5, D("1573.4"), 1)
    assert (tick.offers[4].quantity, tick.offers[4].price, tick.offers[4].orders) == (724, D("1573.95"), 5)


def test_the_official_quote_packet() -> None:
    (tick,) = ticks(framed(packet("ticker_quote.packet")))
    assert (tick.mode, tick.last_price, tick.volume) == ("quote", D("1573.15"), 1175986)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(LENGTHS), st.sampled_from([1, 2, 3, 4, 6, 7, 9]), st.randoms(use_true_random=False)),
        min_size=1, max_size=6,
    )
)  # fmt: skip
def test_frames_are_read_as_the_official_parser_reads_them(wanted: list[tuple[int, int, Any]]) -> None:
    packets = []
    for length, drawn, random in wanted:
        segment = 9 if length in (28, 32) else 1 if drawn == 9 and length in (44, 184) else drawn
        body = struct.pack(">I", random.randrange(1, 2**20) * 256 + segment)
        while len(body) < length:  # numbers within what both read the same way: not negative
            body += struct.pack(">I", random.randrange(1, 2**31))
        packets.append(body[:length])
    frame = framed(*packets)
    for ours, theirs in zip(ticks(frame), official(frame), strict=True):
        assert ours.instrument_token == theirs["instrument_token"]
        assert float(ours.last_price) == pytest.approx(theirs["last_price"])
        assert (ours.mode, ours.tradable) == (theirs["mode"], theirs["tradable"])
        if "ohlc" in theirs:
            assert {n: float(getattr(ours, n)) for n in theirs["ohlc"]} == pytest.approx(theirs["ohlc"])
        if "volume_traded" in theirs:
            assert (ours.volume, ours.last_quantity) == (theirs["volume_traded"], theirs["last_traded_quantity"])
            assert (ours.buy_quantity, ours.sell_quantity) == (
                theirs["total_buy_quantity"], theirs["total_sell_quantity"],
            )  # fmt: skip
        if "depth" in theirs:
            assert ours.oi == theirs["oi"]
            for side, levels in (("buy", ours.bids), ("sell", ours.offers)):
                assert [(level.quantity, float(level.price), level.orders) for level in levels] == [
                    (row["quantity"], pytest.approx(row["price"]), row["orders"]) for row in theirs["depth"][side]
                ]
        if theirs.get("exchange_timestamp"):
            assert ours.exchange_at is not None
            assert ours.exchange_at.timestamp() == theirs["exchange_timestamp"].timestamp()


def test_an_index_has_its_prices_in_another_order_and_currency_another_divisor() -> None:
    index = struct.pack(
        ">8I", 256 * 7 + 9, 2_500_000, 2_510_000, 2_490_000, 2_495_000, 2_480_000, 20_000, 1_625_460_087
    )
    currency = struct.pack(">2I", 256 * 7 + 3, 883_512_500)
    first, second = ticks(framed(index, currency))
    assert (first.high, first.low, first.open, first.close) == (25_100, 24_900, 24_950, 24_800)
    assert first.exchange_at == datetime(2021, 7, 5, 4, 41, 27, tzinfo=UTC)
    assert second.last_price == D("88.35125")


@pytest.mark.parametrize("mixed", [False, True])
def test_arrays_say_the_same_as_ticks(mixed: bool) -> None:
    full, quote = packet("ticker_full.packet"), packet("ticker_quote.packet")
    frame = framed(full, quote, full) if mixed else framed(full, full, full)
    rows = decode(frame)[184]
    assert len(rows) == (2 if mixed else 3)
    assert (rows["last"] / divisors(rows["token"])).tolist() == [1573.7] * len(rows)
    assert (rows["depth"]["price"][:, 0] / 100).tolist() == [1573.4] * len(rows)


@pytest.mark.parametrize("name", ["ticker_full.packet", "ticker_quote.packet"])
def test_values_are_those_of_the_official_parser(name: str) -> None:
    frame = framed(packet(name), packet(name))
    (rows,) = decode(frame).values()
    found, told = values(rows), official(frame)
    for place, theirs in enumerate(told):
        for ours, key in {
            "token": "instrument_token", "last": "last_price", "quantity": "last_traded_quantity", "volume": "volume_traded",
            "average": "average_traded_price", "bought": "total_buy_quantity", "sold": "total_sell_quantity",
        }.items():  # fmt: skip
            assert found[ours][place] == theirs[key]
        assert {key: found[key][place] for key in theirs["ohlc"]} == theirs["ohlc"]
        if "depth" in theirs:
            both = theirs["depth"]["buy"] + theirs["depth"]["sell"]
            assert found["depth_price"][place].tolist() == [row["price"] for row in both]
            assert found["depth_quantity"][place].tolist() == [row["quantity"] for row in both]
            assert found["depth_orders"][place].tolist() == [row["orders"] for row in both]
            assert found["at"][place].item() == datetime(2021, 7, 5, 5, 11, 27)  # noqa: DTZ001 - numpy's are UTC


def test_a_time_of_zero_is_no_time_and_a_price_may_be_negative() -> None:
    full = bytearray(packet("ticker_full.packet"))
    full[44:48], full[4:8] = bytes(4), struct.pack(">i", -1_050)
    frame = framed(bytes(full))
    (tick,) = ticks(frame)
    assert (tick.last_trade_at, tick.last_price) == (None, D("-10.5"))
    found = values(decode(frame)[184])
    assert str(found["traded_at"][0]) == "NaT"
    assert found["last"][0] == -10.5


def test_times_do_not_depend_on_the_machine_s_zone(tmp_path: Path) -> None:
    frame = tmp_path / "frame"
    frame.write_bytes(framed(packet("ticker_full.packet")))
    code = (
        "import sys; from pathlib import Path; from trading_platform.venues.zerodha.packets import ticks;"
        "print(next(ticks(Path(sys.argv[1]).read_bytes())).exchange_at.isoformat())"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code, str(frame)], env=os.environ | {"TZ": zone}, capture_output=True, text=True,
            check=True,
        ).stdout.strip()
        for zone in ("UTC", "America/New_York", "Asia/Kolkata")
    }  # fmt: skip
    assert told == {"2021-07-05T05:11:27+00:00"}


def test_a_heartbeat_is_no_tick() -> None:
    assert list(ticks(b"\x00")) == []
    assert decode(b"\x00") == {}
    assert split(b"") == []


@pytest.mark.parametrize(
    ("frame", "what"),
    [
        (b"\x00\x01", "cut off"), (b"\x00\x01\x00\x08\x00", "cut off"), (framed(b"1234567"), "has 7 bytes"),
        (framed(b"12345678") + b"x", "left over"), (b"\xff\xff", "cut off"),
    ],
)  # fmt: skip
def test_a_broken_frame_says_where(frame: bytes, what: str) -> None:
    with pytest.raises(BadFrameError, match=what):
        list(ticks(frame))
    with pytest.raises(BadFrameError, match=what):
        decode(frame)


@settings(max_examples=300)
@given(st.binary(max_size=600))
def test_any_bytes_are_ticks_or_a_named_error(frame: bytes) -> None:
    for read in (lambda data: list(ticks(data)), decode):
        with contextlib.suppress(BadFrameError):
            read(frame)
