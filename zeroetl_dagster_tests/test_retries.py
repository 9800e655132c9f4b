"""Which of the shipped jobs' runs Dagster begins again when their process died, with this project's dagster.yaml."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.events import RunFailureReason
from dagster._core.execution.retries import auto_reexecution_should_retry_run
from dagster._core.storage.dagster_run import DagsterRun

import zeroetl_dagster
from zeroetl_dagster import definitions

INSTANCE = Path(next(iter(zeroetl_dagster.__path__))) / "dagster.yaml"
AGAIN = {"tickit_provision", "tickit_checks", "tickit_export__export_job", "tickit_export__reconcile_job"}
# Marts are asked for anew by their sensor, those that are still due; the rest is a person's decision.
NOT_AGAIN = {"tickit_refresh", "tickit_marts_refresh", "tickit_lake_marts_refresh", "tickit_resync", "tickit_teardown"}


@pytest.fixture(scope="module")
def loaded() -> dg.Definitions:
    return definitions.defs()


def test_every_job_has_been_decided_on(loaded: dg.Definitions) -> None:
    jobs = {job.name for job in loaded.get_repository_def().get_all_jobs()} - {"__ASSET_JOB"}
    assert jobs == AGAIN | NOT_AGAIN


@pytest.mark.parametrize("job", sorted(AGAIN | NOT_AGAIN))
def test_a_killed_run_is_begun_again_where_nobody_else_does_and_it_does_no_harm(
    loaded: dg.Definitions, job: str
) -> None:
    tags = dict(loaded.resolve_job_def(job).run_tags)
    with dg.instance_for_test(
        overrides={"run_retries": yaml.safe_load(INSTANCE.read_text())["run_retries"]}
    ) as instance:
        run = instance.add_run(DagsterRun(job_name=job, tags=tags, status=dg.DagsterRunStatus.FAILURE))
        assert auto_reexecution_should_retry_run(instance, run, RunFailureReason.UNKNOWN) is (job in AGAIN)
        assert not auto_reexecution_should_retry_run(instance, run, RunFailureReason.STEP_FAILURE), "it has said why"
