"""The embedded PostgreSQL after every way an earlier run can have ended."""

import signal
import subprocess
from pathlib import Path

import psycopg
import pytest

from tests.stack.conftest import until
from trading_platform.stack.processes import die_with_parent
from trading_platform.stack.servers import Postgres, running


def _start(server: Postgres) -> "subprocess.Popen[bytes]":
    """Start a server that is nobody's for the test: as one that an earlier run has left."""
    with (server.folder / "left.log").open("ab") as log:
        process = subprocess.Popen(server.command(), stdout=log, stderr=log, preexec_fn=die_with_parent)
    until(server.is_ready)
    return process


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Postgres:
    server = Postgres(tmp_path_factory.mktemp("own"), fsync=False)
    server.prepare()
    return server


def _answers(server: Postgres) -> bool:
    with running(server) as url, psycopg.connect(url.replace("/trading", "/postgres")) as connection:
        return connection.execute("select 1").fetchone() == (1,)


def test_server_that_was_left_running_is_ended(postgres: Postgres) -> None:
    left = _start(postgres)
    postgres.recover()
    assert left.poll() is not None
    assert not (postgres.data / "postmaster.pid").exists()
    assert _answers(postgres)


def test_server_that_is_shutting_down_is_waited_for(postgres: Postgres) -> None:
    left = _start(postgres)
    with psycopg.connect(postgres.url.replace("/trading", "/postgres")):
        left.send_signal(signal.SIGTERM)  # waits for its clients
        until(lambda: not postgres.is_ready())
        postgres.recover()
        assert left.poll() is not None
    assert _answers(postgres)


def test_lock_file_of_a_killed_server_is_dropped(postgres: Postgres) -> None:
    left = _start(postgres)
    left.kill()
    left.wait()
    assert (postgres.data / "postmaster.pid").exists()
    postgres.recover()
    assert _answers(postgres)


def test_process_that_has_the_old_id_by_now_is_left_alone(postgres: Postgres) -> None:
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        (postgres.data / "postmaster.pid").write_text(f"{stranger.pid}\n{postgres.data}\n")
        postgres.recover()
        assert stranger.poll() is None
        assert _answers(postgres)
    finally:
        stranger.kill()
        stranger.wait()


def test_server_of_another_folder_is_left_alone(postgres: Postgres, tmp_path: Path) -> None:
    other = Postgres(tmp_path / "postgres")
    other.data.mkdir(parents=True)
    left = _start(postgres)
    (other.data / "postmaster.pid").write_text(f"{left.pid}\n")
    other.recover()
    assert left.poll() is None
    left.send_signal(signal.SIGINT)
    left.wait(10)
