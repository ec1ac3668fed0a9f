"""The journal survives what can happen to a file: a torn end, damage, a second process, a compaction cut short."""

import asyncio
import os
from pathlib import Path

import pytest

from tests.sandbox.markets import buy, exchange, funded, step
from tests.sandbox.test_properties import state
from trading_platform.sandbox import journal as journals
from trading_platform.sandbox.exchange import Exchange, Genesis, OtherExchangeError
from trading_platform.sandbox.journal import Journal, JournalDamagedError, JournalInUseError

RECORDS = [{"c": "one", "n": 1}, {"c": "two", "text": "line\nbreak"}, {"c": "three", "n": 3}]


def written(folder: Path) -> Path:
    journal = Journal(folder)
    for record in RECORDS:
        journal.append(record)
    journal.close()
    return journal.path


def read(folder: Path) -> list[dict]:
    journal = Journal(folder)
    try:
        return list(journal.records())
    finally:
        journal.close()


def test_a_file_cut_anywhere_gives_the_whole_records_before_the_cut(tmp_path: Path) -> None:
    content = written(tmp_path / "whole").read_bytes()
    ends = [position + 1 for position, byte in enumerate(content) if byte == ord("\n")]
    for cut in range(len(content) + 1):
        folder = tmp_path / f"cut-{cut}"
        folder.mkdir()
        (folder / "journal-000001.log").write_bytes(content[:cut])
        whole = sum(end <= cut for end in ends)
        assert read(folder) == RECORDS[:whole]
        journal = Journal(folder)
        assert list(journal.records()) == RECORDS[:whole]
        journal.append({"c": "after"})
        journal.close()
        assert read(folder) == [*RECORDS[:whole], {"c": "after"}], "what follows a cut-off end must be readable"


def test_a_changed_byte_in_the_middle_stops_the_start(tmp_path: Path) -> None:
    path = written(tmp_path / "j")
    content = bytearray(path.read_bytes())
    content[12] ^= 1
    path.write_bytes(content)
    with pytest.raises(JournalDamagedError, match="byte 0"):
        read(tmp_path / "j")


def test_only_its_owner_can_read_it_and_only_one_process_writes_it(tmp_path: Path) -> None:
    path = written(tmp_path / "j")
    assert path.stat().st_mode & 0o077 == 0
    assert (tmp_path / "j").stat().st_mode & 0o077 == 0
    first = Journal(tmp_path / "j")
    with pytest.raises(JournalInUseError, match="another process"):
        Journal(tmp_path / "j")
    first.close()


async def test_those_who_wait_together_share_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs: list[int] = []
    monkeypatch.setattr(journals.os, "fdatasync", lambda descriptor: syncs.append(os.fstat(descriptor).st_size))
    journal, told = Journal(tmp_path / "j"), []

    async def customer(number: int) -> int:
        journal.append({"n": number}, lambda: told.append((number, len(syncs))))
        await journal.durable()
        return len(syncs)

    done = await asyncio.gather(*(customer(number) for number in range(50)))
    assert len(syncs) == 1
    assert done == [1] * 50, "nobody goes on before the sync"
    assert told == [(number, 1) for number in range(50)], "listeners are told in order, after the sync"
    await journal.durable()
    assert len(syncs) == 1, "nothing new, nothing to wait for"
    journal.close()


def test_a_compaction_that_was_cut_short_is_as_if_it_had_not_begun(tmp_path: Path) -> None:
    found = exchange(tmp_path / "j")
    found.step(step(0))
    found.place_order(funded(found), buy("1", "39000"))
    found.journal.close()
    (tmp_path / "j" / "journal-000002.partial").write_bytes(b"half a snapsh")
    rebuilt = exchange(tmp_path / "j")
    assert state(rebuilt) == state(found)
    assert not list((tmp_path / "j").glob("*.partial"))
    old = (tmp_path / "j" / "journal-000001.log").read_bytes()
    rebuilt.journal.compact(rebuilt.snapshot())
    rebuilt.step(step(1))
    rebuilt.journal.close()
    (tmp_path / "j" / "journal-000001.log").write_bytes(old)  # killed before the old file was removed
    again = exchange(tmp_path / "j")
    assert state(again) == state(rebuilt)
    assert [path.name for path in (tmp_path / "j").glob("journal-*")] == ["journal-000002.log"]
    again.journal.close()


def test_a_long_journal_is_replaced_by_a_short_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "LEAST_TO_COMPACT", 20_000)
    found = exchange(tmp_path / "j")
    alice = funded(found)
    for index in range(200):
        found.step(step(index))
        if index % 2:
            found.place_order(alice, buy("0.01", client_id=f"o{index}"))
        found.journal.flush()
    found.journal.close()
    files = list((tmp_path / "j").glob("journal-*.log"))
    assert len(files) == 1
    assert files[0].name != "journal-000001.log"
    rebuilt = exchange(tmp_path / "j")
    assert state(rebuilt) == state(found)
    assert len(rebuilt.books.accounts["alice"].orders) == 100
    rebuilt.journal.close()


def test_another_datasets_journal_is_refused_and_the_seed_it_began_with_stays(tmp_path: Path) -> None:
    first = exchange(tmp_path / "j", seed=1)
    first.journal.close()
    again = exchange(tmp_path / "j", seed=2)
    assert again.genesis.seed == 1
    again.journal.close()
    with pytest.raises(OtherExchangeError, match="other_dataset"):
        Exchange.open(tmp_path / "j", Genesis("other_dataset", 3600, 1, first.genesis.instruments))
