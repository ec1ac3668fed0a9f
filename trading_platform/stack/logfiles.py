"""Log files of the services: appended to by the child itself, cut by us when they grow.

The child holds the file, not a pipe through the supervisor, so that it can still say why it ended after the
supervisor is gone. A file is therefore cut in place: its content is copied to `.1` and the file is emptied. What is
written between the two, some microseconds, is lost.
"""

import os
import shutil
from pathlib import Path
from typing import IO

ROTATE_AT_BYTES = 20 * 1024 * 1024
KEEP = 3


def open_log(path: Path) -> IO[bytes]:
    """The file, open for appending by a child, readable by its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab", buffering=0)


def rotate(path: Path, limit: int = ROTATE_AT_BYTES, keep: int = KEEP) -> bool:
    """Move what is in `path` to `path.1` (`.1` to `.2`, ...) if it holds `limit` bytes or more. True if it did."""
    if not path.exists() or path.stat().st_size < limit:
        return False
    for number in range(keep - 1, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        if older.exists():
            older.replace(path.with_name(f"{path.name}.{number + 1}"))
    shutil.copy2(path, path.with_name(f"{path.name}.1"))
    os.truncate(path, 0)
    return True


def tail(path: Path, lines: int = 15) -> str:
    """The last lines, for an error message."""
    try:
        with path.open("rb") as handle:
            handle.seek(max(0, path.stat().st_size - 8192))
            return "\n".join(handle.read().decode(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return "(no log)"
