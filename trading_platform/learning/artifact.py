"""A model version's artifact: one JSON file, named by the hash of its bytes.

It holds all that serving needs: the model, the features in order with their hash, calibrators, threshold, outlier
statistics. Reading it checks the hash, so what serves is what was registered.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FORMAT = 1
FOLDER = "models"


class ArtifactError(RuntimeError):
    """The artifact is missing, was changed, or is of a format this code does not read."""


def encoded(document: Mapping[str, Any]) -> tuple[bytes, str]:
    """(the file's bytes, their sha256) of a document: equal documents are equal bytes."""
    data = json.dumps({"format": FORMAT, **document}, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    return data, hashlib.sha256(data).hexdigest()


def write_artifact(artifacts_dir: Path, document: Mapping[str, Any]) -> tuple[str, str]:
    """Store the document; returns (path relative to the artifacts folder, sha256 of the file). Idempotent."""
    data, digest = encoded(document)
    relative = f"{FOLDER}/{digest}.json"
    path = artifacts_dir / relative
    if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == digest:
        return relative, digest
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())
    Path(handle.name).replace(path)
    return relative, digest


def read_artifact(artifacts_dir: Path, relative: str, sha256: str) -> dict[str, Any]:
    """The document behind a registry row. Raises `ArtifactError` where the file is gone or not the registered one."""
    path = artifacts_dir / relative
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ArtifactError(
            f"the artifact {path} is missing. Restore the artifacts folder, or train the version again: the same "
            "inputs give the same file."
        ) from None
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise ArtifactError(
            f"the artifact {path} was changed: its sha256 is {found}, the registry says {sha256}. It will not serve; "
            "restore the file or train the version again."
        )
    document: dict[str, Any] = json.loads(data)
    if document.get("format") != FORMAT:
        raise ArtifactError(f"the artifact {path} has format {document.get('format')!r}; this code reads {FORMAT}")
    return document
