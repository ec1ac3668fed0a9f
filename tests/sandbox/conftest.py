"""Fixtures of the sandbox's tests."""

import logging
from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True, scope="session")
def _only_warnings() -> Iterator[None]:
    """Hundreds of exchanges are opened here; what each of them says is noise."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    yield
    structlog.configure(**before)
