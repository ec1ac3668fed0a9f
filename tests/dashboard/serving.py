"""The pages to look at by hand: real servers, the API, the load balancer and the dashboard on a seeded deployment.

python -m tests.dashboard.serving FOLDER [--empty]     # until Ctrl-C; people and their password: seeding.py
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from tests.dashboard.seeding import PASSWORD, PEOPLE, add_people, add_work, email
from trading_platform.settings import ENDPOINTS_FILE, Settings
from trading_platform.stack.processes import die_with_parent
from trading_platform.stack.servers import Postgres, Valkey, free_port, running
from trading_platform.stack.services import Plan
from trading_platform.storage.analytics import dbt_environment, export
from trading_platform.storage.databases import Databases
from trading_platform.storage.migrate import migrate

DBT = Path(__file__).resolve().parents[2] / "dbt"


def build_marts(databases: Databases, folder: Path, *select: str) -> None:
    """Export, and build the models. dbt runs in this process: its import and parsing are most of its cost."""
    import os

    from dbt.cli.main import dbtRunner

    export(databases)
    options = ["--project-dir", str(DBT), "--profiles-dir", str(DBT), "--quiet"]
    options += ["--target-path", str(folder / "target"), "--log-path", str(folder / "logs")]
    os.environ.update(dbt_environment(databases.settings))
    done = dbtRunner().invoke(["run", *options, *select])
    if not done.success:
        raise RuntimeError(f"dbt failed: {done.exception or [r.message for r in done.result if r.status != 'success']}")


@contextlib.contextmanager
def process(service: Any, folder: Path) -> Iterator[None]:
    """A service of the plan, until the block ends."""
    import os

    with (folder / f"{service.name}.log").open("ab") as log:
        child = subprocess.Popen(
            service.command, env=os.environ | (service.env or {}), cwd=service.cwd, stdout=log, stderr=log,
            preexec_fn=die_with_parent,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + service.ready_within
        while service.ready is not None and not service.ready():
            if child.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{service.name} did not start, see {folder / service.name}.log")
            time.sleep(0.2)
        yield
    finally:
        child.terminate()
        child.wait(10)


def main(folder: Path, *, empty: bool) -> None:
    from trading_platform.compliance.reports import write_daily_records

    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        postgres = stack.enter_context(running(Postgres(folder / "postgres", fsync=False)))
        valkey = stack.enter_context(running(Valkey(folder / "valkey")))
        (folder / "home" / ENDPOINTS_FILE).unlink(missing_ok=True)  # an earlier run's addresses are not ours
        plan = Plan(Settings(home_dir=folder / "home", database_url=postgres, redis_url=valkey, port=free_port()))
        plan.write_files()
        databases = Databases(Settings(home_dir=folder / "home"))
        migrate(databases)
        if not databases.group_ids():
            add_people(databases)
            if not empty:
                add_work(databases, bars=600)
                build_marts(databases, folder)
                today = datetime.now(timezone(timedelta(hours=5, minutes=30))).date()
                write_daily_records(databases, today)
        for service in plan.platform():
            if service.name.startswith(("api", "dashboard", "caddy")):
                stack.enter_context(process(service, folder))
        print(f"{plan.url}/app/   password: {PASSWORD}")
        for user_id, name, role, _ in PEOPLE:
            print(f"  {email(user_id)}: {name}, {role}")
        while True:
            time.sleep(60)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(Path(sys.argv[1]), empty="--empty" in sys.argv)
