"""One pass of the loop, with progress: collect, train, trade, learn, report. `python -m jobs.one_pass --help`.

Each stage is a Dagster job, executed in this process on the platform's own instance, so that every run, check and plot
is in the UI afterwards. Trading itself is done by the supervised services; this process asks for them by writing
`<home>/run/dataset.json`, starts the sandbox's replay and watches it.
"""

import argparse
import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import structlog
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

import assets.progress
from assets import partitions
from definitions import defs
from jobs import pass_trading
from jobs.definitions import EVALUATION
from jobs.pass_books import compare_books
from jobs.pass_summary import PassSummary
from trading_platform.accounts.users import first_users
from trading_platform.settings import Settings, settings
from trading_platform.storage.databases import Databases

RETRAINING_TIMEOUT_SECONDS = 420.0
BINANCE_PROBE_URL = "https://api.binance.com/api/v3/ping"
BINANCE_PROBE_SECONDS = 3.0


TOO_FEW_ROWS = "TooFewRowsError"


class PassFailedError(RuntimeError):
    """A stage of the pass did not succeed; the message says which one and where to look, `error` what was raised."""

    def __init__(self, message: str, error: str = "") -> None:
        super().__init__(message)
        self.error = error


class OnePass:
    """The stages in order; what each needs from the one before is passed along, nothing is kept on the side."""

    def __init__(self, console: Console, *, drill: str, speed: str, once: bool, venue: str = "") -> None:
        self.console = console
        self.drill = drill
        self.speed = speed
        self.once = once
        self.venue = venue
        self.settings = settings()
        self.databases = Databases(self.settings)
        self.instance = dg.DagsterInstance.get()
        self.summary = PassSummary(self.databases, self.settings)
        self.progress = Progress(
            SpinnerColumn(finished_text="[green]✓[/green]"),
            TextColumn("[bold]{task.description:<10}[/bold]"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[what]}[/dim]"),
            console=console,
            disable=not console.is_terminal,  # a log gets a line a stage instead
        )

    def run(self, data: str) -> None:
        source = choose_source(data, self.console)
        end_abandoned_runs(self.instance, _platform_started(self.settings))
        first_users(self.databases)
        with self.progress:
            with self.stage("collect"):
                dataset_id = self.collect(source)
                self.require_venue(dataset_id)
            with self.stage("train"):
                trained = self.train(dataset_id)
            if trained:
                with self.stage("trade") as report:
                    self.trade(dataset_id, report)
                with self.stage("learn") as report:
                    self.learn(dataset_id, report)
            with self.stage("report"):
                self.report(dataset_id)
        self.summary.write(dataset_id)
        self.summary.show(self.console)

    # --- stages ------------------------------------------------------------------------------------------------------

    def collect(self, source: str) -> str:
        result = self.execute("collect", {"bars": {"source": source, "drill": self.drill}})
        return str(result.output_for_node("bars"))

    def require_venue(self, dataset_id: str) -> None:
        """Raise `PassFailedError` where orders of this dataset cannot go where they were asked to go."""
        goes_to = pass_trading.Services(self.settings, self.databases, dataset_id).venue
        if self.venue and goes_to != self.venue:
            raise PassFailedError(
                f"orders of this data go to {goes_to or 'no venue'}, not to {self.venue}: Indian shares and indices are "
                "traded at zerodha, pairs such as BTC/USDT at binance. Leave VENUE out, or bring other data"
            )

    def train(self, dataset_id: str) -> bool:
        """Whether there is a model now. Data too short to learn from are no failure: they are kept, and reported on."""
        names = ("trained_model", "baseline_model", "serving")
        try:
            self.execute("train", {name: {"dataset_id": dataset_id} for name in names})
        except PassFailedError as problem:
            if problem.error != TOO_FEW_ROWS:
                raise
            self.console.print(f"[yellow]Not trained, so nothing is traded:[/yellow] {problem}", highlight=False)
            return False
        return True

    def trade(self, dataset_id: str, report: assets.progress.Listener) -> None:
        services = pass_trading.Services(self.settings, self.databases, dataset_id)
        services.start()
        pass_trading.replay(services, speed=self.speed, beyond_tail=not self.once, report=report)
        if services.tradable:
            self.compare_books(dataset_id)

    def compare_books(self, dataset_id: str) -> None:
        """Hold every order and fill against the venue's own books. Raises `PassFailedError` where they differ."""
        self.summary.compared = compare_books(self.settings, self.databases, dataset_id)
        if lines := self.summary.compared.differences:
            raise PassFailedError(
                f"{len(lines)} orders or fills differ between our books and the venue's; the first: {lines[0]}"
            )

    def learn(self, dataset_id: str, report: assets.progress.Listener) -> None:
        self.execute("evaluate", {name: {"dataset_id": dataset_id} for name in EVALUATION})
        run_key = self.summary.retraining_key(dataset_id)
        if run_key is not None:
            report("drift: waiting for the sensor's retraining run", 1, 2)
            self.summary.retraining_run_id = self.wait_for_run(run_key)

    def report(self, dataset_id: str) -> None:
        for group_id in self.databases.group_ids():
            self.instance.add_dynamic_partitions(partitions.groups.name or "", [group_id])
            self.execute("execution", partition_key=group_id)
        versions = self.summary.version_ids(dataset_id)
        self.instance.add_dynamic_partitions(partitions.versions.name or "", versions)
        for version_id in self.summary.without_card(versions):
            self.execute("model_cards", partition_key=version_id)
        self.execute("marts")
        today = datetime.now(ZoneInfo(partitions.INDIA)).strftime("%Y-%m-%d")
        self.execute("compliance", partition_key=today)

    # --- machinery ---------------------------------------------------------------------------------------------------

    @contextmanager
    def stage(self, name: str) -> Iterator[assets.progress.Listener]:
        """Time a stage and draw its line; yields the callback that moves the bar."""
        task = self.progress.add_task(name, total=1.0, what="")
        report = self._reporter(task)
        assets.progress.listeners[:] = [report]
        started = time.monotonic()
        if not self.console.is_terminal:
            self.console.print(f"{name} ...")
        yield report
        self.progress.update(task, completed=1.0, what="")
        self.summary.seconds[name] = round(time.monotonic() - started, 1)
        if not self.console.is_terminal:
            self.console.print(f"{name} done in {self.summary.seconds[name]} s")

    def _reporter(self, task: TaskID) -> assets.progress.Listener:
        def report(what: str, done: int, total: int) -> None:
            self.progress.update(task, completed=min(done / max(total, 1), 0.999), what=what)

        return report

    def execute(
        self, job: str, ops: Mapping[str, Mapping[str, Any]] | None = None, partition_key: str | None = None
    ) -> dg.ExecuteInProcessResult:
        """Run one job here, recorded on the platform's instance. Raises `PassFailedError`."""
        config = {
            "ops": {name: {"config": dict(values)} for name, values in (ops or {}).items()},
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},  # what fails is said in one line, below
        }
        with (self.settings.logs_dir / "pass.log").open("a") as log, redirect_stdout(log):  # dbt prints what it does
            result = defs.resolve_job_def(job).execute_in_process(
                instance=self.instance,
                run_config=config,
                partition_key=partition_key,
                raise_on_error=False,
                tags={"trigger": "pass"},
            )
        if not result.success:
            raise _failure(result, job)
        return result

    def wait_for_run(self, run_key: str) -> str:
        """The id of the run that the sensor launched for this key, once it has ended well."""
        deadline = time.monotonic() + RETRAINING_TIMEOUT_SECONDS
        filters = dg.RunsFilter(tags={"dagster/run_key": run_key})
        while time.monotonic() < deadline:
            for run in self.instance.get_runs(filters, limit=1):
                if run.status is dg.DagsterRunStatus.SUCCESS:
                    return run.run_id
                if run.is_finished:
                    raise PassFailedError(f"the retraining run {run.run_id} ended as {run.status.value}; see its log")
            time.sleep(0.5)
        raise PassFailedError(
            f"the drift sensor launched no retraining run for {run_key} within {RETRAINING_TIMEOUT_SECONDS:.0f} s; "
            "is the Dagster daemon running? (`trading-platform status`)"
        )


def choose_source(data: str, console: Console) -> str:
    """`auto` is Binance's public data where it answers within 3 s, else synthetic; the choice is said aloud."""
    if data != "auto":
        return data
    import httpx

    try:
        httpx.get(BINANCE_PROBE_URL, timeout=BINANCE_PROBE_SECONDS).raise_for_status()
    except httpx.HTTPError:
        console.print(
            f"[bold]Data: synthetic.[/bold] Binance's public data did not answer within {BINANCE_PROBE_SECONDS:.0f} s; "
            "DATA=path uses your own files."
        )
        return "synthetic"
    console.print("[bold]Data: Binance[/bold], public market data; orders go to the sandbox.")
    return "binance"


def end_abandoned_runs(instance: dg.DagsterInstance, before: datetime) -> None:
    """Fail the runs that an earlier start of the platform left behind: their processes ended with it.

    Nobody else would: the launcher does not notice a dead worker, and each such run holds one of the few slots that
    queued runs, a retraining among them, wait for. `before`: when this start began (aware).
    """
    statuses = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
    for run in instance.get_runs(dg.RunsFilter(statuses=statuses, updated_before=before)):
        instance.report_run_failed(run, "The platform was stopped before this run had ended.")


def _platform_started(current: Settings) -> datetime:
    """When the supervisor that we run under was started; now, where the pass runs on its own."""
    try:
        state = json.loads((current.run_dir / "stack.json").read_text())
        return datetime.fromtimestamp(state["supervisor"]["create_time"], UTC)
    except (FileNotFoundError, KeyError):
        return datetime.now(UTC)


def _failure(result: dg.ExecuteInProcessResult, job: str) -> PassFailedError:
    """The innermost error of the first failed step, or the check that blocked."""
    for event in result.all_events:
        if event.is_step_failure and event.step_failure_data.error is not None:
            error = event.step_failure_data.error
            while error.cause is not None:
                error = error.cause
            what = f"job {job!r}, step {event.step_key!r}: {error.message.strip()} (run {result.run_id})"
            return PassFailedError(what, error.cls_name or "")
    return PassFailedError(f"job {job!r} did not succeed (run {result.run_id})")


def main() -> int:
    """Exit status 0 only if every stage succeeded and the summary is written."""
    parser = argparse.ArgumentParser(description="Run the whole loop once and write <home>/run/summary.json.")
    parser.add_argument("--data", default="auto", help="a file, a folder, binance, synthetic or auto (default)")
    parser.add_argument("--drill", default="", choices=["", "drift"], help="change the replayed data on purpose")
    parser.add_argument("--venue", default="", choices=["", *sorted(set(pass_trading.VENUES.values()))],
                        help="where orders must go; default: by the data's exchange")  # fmt: skip
    parser.add_argument("--once", action="store_true", help="do not let a synthetic market run on after the pass")
    parser.add_argument("--speed", default="max", help="steps of the replay per second, or max (default)")
    options = parser.parse_args()
    console = Console(file=sys.stdout)  # this very stream, also while the stages' own output goes to a file
    # Standard output belongs to the progress bars; what went wrong is in the runs' logs and on standard error.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    started = datetime.now(UTC)
    try:
        OnePass(console, drill=options.drill, speed=options.speed, once=options.once, venue=options.venue).run(
            options.data
        )
    except (PassFailedError, pass_trading.TradingStalledError) as problem:
        console.print(f"\n[bold red]The pass stopped.[/bold red] {problem}", highlight=False)
        return 1
    console.print(f"[dim]one pass of the loop in {(datetime.now(UTC) - started).total_seconds():.0f} s[/dim]")
    return 0


if __name__ == "__main__":
    sys.exit(main())
