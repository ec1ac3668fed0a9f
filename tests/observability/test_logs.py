"""Logs of a real process: JSON lines, one road for all libraries, traces, and no secret whichever way it comes in."""

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading_platform.observability.logs import REDACTED, configure, redact, redact_text
from trading_platform.settings import Settings

PROGRAM = """
import logging, sys, warnings
from decimal import Decimal
from pathlib import Path
import structlog
from pydantic import SecretStr
from trading_platform.observability import logs, traces
from trading_platform.settings import Settings

settings = Settings(home_dir=Path(sys.argv[1]), environment="test")
logs.configure("engine:g1", settings)
traces.configure_tracing("engine:g1", settings)
log = structlog.get_logger("here")
with traces.tracer("here").start_as_current_span("order") as span:
    log.info("order_sent", price=Decimal("42000.10"), symbol="BTC/USDT", api_key="KEY-1", nested={"tokens": [{"password": "PASS-2"}]})
    logging.getLogger("library").warning("GET https://x.example/api?signature=SIG-3&symbol=BTC", extra={"client_secret": "SEC-4"})
    log.info("opened", secret_box=SecretStr("BOX-5"), url="postgresql://me:PASS-6@db/trading", who={"authorization": "Bearer TOK-7"})
log.debug("too quiet")
try:
    raise ValueError("refused: api_secret=SEC-8 for redis://:PASS-9@host/0")
except ValueError:
    log.exception("failed")
logging.getLogger("library").error("bad %s", "thing", exc_info=ValueError("Authorization: Bearer TOKEN-10abcdef"))
log.info("kept", instrument_token=738561, tokens_per_second=5, token_set=True)
"""


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    home = tmp_path_factory.mktemp("logs")
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(home)], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_every_line_is_json_with_the_common_fields(lines: list[str]) -> None:
    entries = [json.loads(line) for line in lines]
    assert [entry["event"] for entry in entries] == [
        "order_sent", f"GET https://x.example/api?signature={REDACTED}&symbol=BTC", "opened", "failed", "bad thing", "kept",
    ]  # fmt: skip
    for entry in entries:
        assert datetime.fromisoformat(entry["ts"]).utcoffset().total_seconds() == 0  # type: ignore[union-attr]
        assert (entry["service"], entry["environment"]) == ("engine:g1", "test")
    assert [entry["level"] for entry in entries] == ["info", "warning", "info", "error", "error", "info"]
    assert entries[0]["price"] == "42000.10"
    assert entries[1]["logger"] == "library"
    assert "ValueError: refused" in entries[3]["exception"]


def test_lines_inside_a_span_carry_its_ids_and_others_none(lines: list[str]) -> None:
    entries = [json.loads(line) for line in lines]
    assert len({entry["trace_id"] for entry in entries[:3]}) == 1
    assert len(entries[0]["trace_id"]) == 32
    assert len(entries[0]["span_id"]) == 16
    assert not any("trace_id" in entry for entry in entries[3:])


def test_no_secret_is_in_any_line(lines: list[str]) -> None:
    for marker in ("KEY-1", "PASS-2", "SIG-3", "SEC-4", "BOX-5", "PASS-6", "TOK-7", "SEC-8", "PASS-9", "TOKEN-10"):
        assert marker not in "\n".join(lines)


def test_public_tokens_stay(lines: list[str]) -> None:
    kept = json.loads(lines[-1])
    assert (kept["instrument_token"], kept["tokens_per_second"], kept["token_set"]) == (738561, 5, True)


SECRET = st.text("abcdefghijkXYZ0123456789-_", min_size=12, max_size=40).map(lambda text: "zq" + text)
KEYS = st.sampled_from(
    ["password", "api_key", "API_SECRET", "apiKey", "access_token", "Set-Cookie", "X-Signature", "private_key"]
)


@given(SECRET, KEYS, st.integers(0, 12))
def test_a_secret_is_found_however_deep_it_sits(secret: str, key: str, depth: int) -> None:
    value: object = {key: secret}
    for level in range(depth):
        value = [value] if level % 2 else {"inner": value}
    assert secret not in str(redact(None, "info", {"event": "x", "value": value}))


@given(SECRET)
def test_a_secret_inside_text_is_found(secret: str) -> None:
    for text in (
        f"https://user:{secret}@host/path", f"?timestamp=1&signature={secret}&x=1", f"password={secret}", f"token: {secret}",
        f'{{"api_secret": "{secret}"}}', f"Authorization: Bearer {secret}", f"'access_token': '{secret}'",
    ):  # fmt: skip
        assert secret not in redact_text(text)


@pytest.mark.parametrize("text", ["order 12 of BTC/USDT at 10:30:00", "https://host:8400/path?x=1", "a@b.example", ""])
def test_plain_text_is_left_alone(text: str) -> None:
    assert redact_text(text) == text


def test_an_unknown_level_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="TP_LOG_LEVEL is 'LOUD'; expected DEBUG"):
        configure("x", Settings(home_dir=tmp_path, log_level="LOUD"))
