"""What, beside the data, decides a version's numbers: our code, and the libraries that compute them."""

import hashlib
from functools import cache
from importlib import metadata
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
ROOMS = ("learning", "features")
LIBRARIES = ("lightgbm", "numba", "numpy", "optuna", "polars", "scikit-learn", "scipy")


@cache
def code_version() -> str:
    """A hash of the sources of features and learning: a commit that touches neither does not make a new version."""
    digest = hashlib.sha256()
    for room in ROOMS:
        for path in sorted((PACKAGE / room).rglob("*.py")):
            digest.update(str(path.relative_to(PACKAGE)).encode() + b"\x1f" + path.read_bytes() + b"\x1e")
    return f"code_{digest.hexdigest()[:20]}"


@cache
def lock_hash() -> str:
    """A hash of the installed versions of the libraries that training computes with."""
    installed = "\n".join(f"{name}=={metadata.version(name)}" for name in LIBRARIES)
    return f"lock_{hashlib.sha256(installed.encode()).hexdigest()[:20]}"
