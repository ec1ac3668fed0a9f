"""What the documentation says of the code, held against the code."""

import re
import subprocess
from pathlib import Path

import pytest

from trading_platform.cli import COMMANDS
from trading_platform.storage.commands import settings_markdown

ROOT = Path(__file__).resolve().parents[1]


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.splitlines() if (ROOT / name).is_file()]


def test_every_room_in_the_architecture_exists_with_the_file_to_read_first() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    rooms = re.findall(r"^\| ((?:`[\w/]+/`(?:, )?)+) \|.*\| `([\w./]+)` \|$", text, flags=re.MULTILINE)
    assert len(rooms) >= 15
    for folders, first in rooms:
        names = re.findall(r"`([\w/]+)`", folders)
        assert all((ROOT / name).is_dir() for name in names), folders
        assert any((ROOT / where / first).is_file() for where in ["", *names]), first


def test_every_room_of_the_domain_is_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    rooms = {path.parent.name for path in (ROOT / "trading_platform").glob("*/__init__.py")}
    assert {room for room in rooms if f"`trading_platform/{room}/`" not in text} == set()


def test_the_files_that_contributing_names_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text() + (ROOT / "README.md").read_text()
    named = set(
        re.findall(r"[`(]((?:trading_platform|assets|jobs|sensors|tests|docs|deploy|dashboard)/[\w/.-]+\.\w+)", text)
    )
    assert named
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_the_settings_page_is_the_settings() -> None:
    assert settings_markdown() in (ROOT / "docs" / "settings.md").read_text()


def test_the_readme_lists_every_command() -> None:
    text = (ROOT / "README.md").read_text()
    assert {name for name in COMMANDS if f"`{name}`" not in text and f"trading-platform {name}" not in text} == set()


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-installer.lock"])
def test_the_lock_holds_hashes_and_no_address(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "--hash=sha256:" in text
    assert not re.search(r"https?://|--(extra-)?index|--find-links|file:", text)
    unpinned = [line for line in text.splitlines() if re.match(r"[a-z0-9]", line) and "==" not in line]
    assert unpinned == []


def test_no_secret_and_no_machine_path_is_in_the_repository() -> None:
    private = re.compile(r"/(home|root|Users)/[a-z]|BEGIN [A-Z ]*PRIVATE KEY|AKIA[0-9A-Z]{16}")
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in tracked()
        if path.suffix not in {".png", ".lock", ".gz"} and path != Path(__file__)
        for match in [private.search(path.read_text(errors="ignore"))]
        if match
    ]
    assert found == []
