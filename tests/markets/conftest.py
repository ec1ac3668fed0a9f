"""Facts from outside that the market rules are tested against."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SHARED


@pytest.fixture(scope="session")
def vectors() -> dict[str, Any]:
    path = SHARED / "design" / "zerodha-vectors.json"
    if not path.exists():
        pytest.skip("the file ../shared/design/zerodha-vectors.json is not here")
    return dict(json.loads(path.read_text()))


@pytest.fixture(scope="session")
def kite_mocks() -> Path:
    folder = SHARED / "kite-mocks"
    if not folder.exists():
        pytest.skip("the folder ../shared/kite-mocks is not here")
    return folder
