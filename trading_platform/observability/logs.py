"""Structured logs: one JSON object a line on standard output, with the trace it belongs to and without any secret.

    configure("engine:g1", settings())
    log = structlog.get_logger(__name__)
    log.info("order_sent", client_order_id=..., symbol="BTC/USDT")

Records of the standard library's `logging` (SQLAlchemy, ccxt, granian, …) take the same road.
"""

import logging
import re
import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson
import structlog
from opentelemetry import trace
from structlog.typing import EventDict, Processor, WrappedLogger

from trading_platform.settings import Settings
from trading_platform.settings import settings as process_settings

REDACTED = "[redacted]"
TOO_DEEP = "[nested too deeply]"
MAX_DEPTH = 8

# `token` alone would also hide `instrument_token`, an exchange's public number of a security.
_SECRET_KEY = re.compile(
    r"passw|secret|credential|authorization|cookie|api_?key|private_?key|master_?key|signature|csrf|enctoken"
    r"|(?<!instrument_)(?<!instrument)token(?!s_per)|webhook_url|database_url|redis_url",
    re.IGNORECASE,
)
_SECRET_IN_TEXT = re.compile(
    r"(?P<scheme>\b[a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s@/]+(?=@)"
    r"|(?P<name>\b(?:api_?key|api_?secret|secret|signature|password|passwd|access_token|refresh_token|token|enctoken)"
    r"[\"']?\s*[=:]\s*[\"']?)[^\s&\"',;)}\]]+"
    r"|(?P<bearer>\b(?:Bearer|Basic)\s+)[A-Za-z0-9._~+/=-]{8,}",
    re.IGNORECASE,
)
_COULD_HOLD_SECRET = re.compile(r"[=:\s]")
"""Whatever `_SECRET_IN_TEXT` finds has one of these; most values have none and cost one quick look."""
# Chatty at INFO: a line for every request they send.
_QUIET = ("httpx", "httpcore", "urllib3", "asyncio", "websockets", "ccxt.base.exchange", "alembic.runtime.migration")


def configure(service: str, settings: Settings | None = None) -> None:
    """Send this process's logs, its own and those of its libraries, to standard output as JSON lines.

    `service` names the process on every line, e.g. `api`, `scorer:binance`, `engine:g1`. Calling it again replaces
    the earlier configuration. Times are UTC, field `ts`, ISO 8601.
    """
    chosen = settings or process_settings()
    level = logging.getLevelNamesMapping().get(chosen.log_level.upper())
    if level is None:
        raise ValueError(f"TP_LOG_LEVEL is {chosen.log_level!r}; expected DEBUG, INFO, WARNING or ERROR")

    def name_process(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event["service"] = service
        event["environment"] = chosen.environment
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        redact,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        name_process,
        add_trace,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(serializer=_to_json_bytes)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.BytesLoggerFactory(sys.stdout.buffer),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), _name_logger],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *shared,
                structlog.processors.JSONRenderer(serializer=_to_json),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    logging.captureWarnings(True)


def add_trace(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Add trace_id and span_id (hex) of the current OpenTelemetry span, where there is one."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event.setdefault("trace_id", trace.format_trace_id(context.trace_id))
        event["span_id"] = trace.format_span_id(context.span_id)
    return event


def redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Replace values under secret-looking keys, and passwords and tokens inside any text, however deep they sit."""
    return {key: _redacted(key, value, MAX_DEPTH) for key, value in event.items()}


def redact_text(text: str) -> str:
    """The text without passwords in URLs, `key=value` secrets and bearer tokens.

    >>> redact_text("GET /api/v3/account?timestamp=1&signature=ab12 postgresql://me:pw@db/x")
    'GET /api/v3/account?timestamp=1&signature=[redacted] postgresql://me:[redacted]@db/x'
    """
    if not _COULD_HOLD_SECRET.search(text):
        return text
    return _SECRET_IN_TEXT.sub(_keep_the_name, text)


@lru_cache(maxsize=4096)
def _is_secret(key: str) -> bool:
    return _SECRET_KEY.search(key) is not None


def _keep_the_name(match: re.Match[str]) -> str:
    return (match["scheme"] or match["name"] or match["bearer"]) + REDACTED


def _redacted(key: object, value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(key, str) and _is_secret(key):
        return REDACTED
    if isinstance(value, str | BaseException):
        return redact_text(str(value))
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        return _redacted_inside(value, depth - 1) if depth else TOO_DEEP
    return value


def _redacted_inside(value: Any, depth: int) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _redacted(name, inner, depth) for name, inner in value.items()}
    return [_redacted(None, inner, depth) for inner in value]


def _name_logger(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Say which library spoke; structlog's own events carry a name of their own."""
    if (record := event.get("_record")) is not None:
        event["logger"] = record.name
    return event


def _to_json_bytes(event: EventDict, **_: Any) -> bytes:
    return orjson.dumps(event, default=_unknown, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY)


def _to_json(event: EventDict, **_: Any) -> str:
    return _to_json_bytes(event).decode()


def _unknown(value: object) -> str:
    return redact_text(str(value))
