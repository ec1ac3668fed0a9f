"""Runs whose processes died with an earlier start of the platform."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from definitions import defs
from jobs.one_pass import end_abandoned_runs


def test_runs_of_an_earlier_start_end_and_later_ones_go_on() -> None:
    job = defs.resolve_job_def("compact")
    with dg.DagsterInstance.ephemeral() as instance:
        going = [
            instance.create_run_for_job(job, status=status)
            for status in (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.NOT_STARTED)
        ]
        done = instance.create_run_for_job(job, status=dg.DagsterRunStatus.SUCCESS)
        end_abandoned_runs(instance, datetime.now(UTC) - timedelta(minutes=1))
        assert [instance.get_run_by_id(run.run_id).status for run in going] == [run.status for run in going]
        end_abandoned_runs(instance, datetime.now(UTC) + timedelta(minutes=1))
        ended = [instance.get_run_by_id(run.run_id).status.value for run in going]
        assert ended == ["FAILURE", "FAILURE", "NOT_STARTED"]
        assert instance.get_run_by_id(done.run_id).status is dg.DagsterRunStatus.SUCCESS
