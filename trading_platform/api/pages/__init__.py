"""The few HTML pages that the API serves itself. They work without JavaScript and load nothing from elsewhere."""

from collections.abc import Mapping
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=select_autoescape(), undefined=StrictUndefined
)


def page(
    name: str,
    values: Mapping[str, Any] | None = None,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> HTMLResponse:
    """A rendered page under a policy that allows its own style sheet and nothing else."""
    nonce = token_urlsafe(12)
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; img-src data:; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    )
    return HTMLResponse(
        _TEMPLATES.get_template(name).render(**(values or {}), nonce=nonce),
        status,
        {"Content-Security-Policy": policy, "Cache-Control": "no-store", **(headers or {})},
    )
