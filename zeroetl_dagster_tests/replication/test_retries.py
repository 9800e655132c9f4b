"""Which of a pipeline's runs Dagster begins again when their process died, with this project's dagster.yaml."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.events import RunFailureReason
from dagster._core.execution.retries import auto_reexecution_should_retry_run
from dagster._core.storage.dagster_run import DagsterRun

import zeroetl_dagster
from zeroetl_dagster.components.zero_etl_integration import build_zero_etl_definitions
from zeroetl_dagster_tests.replication.conftest import shop_settings

INSTANCE = Path(next(iter(zeroetl_dagster.__path__))) / "dagster.yaml"


@pytest.mark.parametrize(
    ("job", "again"),
    [("provision", True), ("checks", True), ("refresh", False), ("resync", False), ("teardown", False)],
)
def test_a_killed_run_is_begun_again_where_nobody_else_does_and_it_does_no_harm(job: str, again: bool) -> None:
    settings = shop_settings()
    tables = {table: () for table in settings.tables if not isinstance(table, str)}
    definitions = dg.Definitions.merge(
        build_zero_etl_definitions(settings, tables), dg.Definitions(resources={"warehouse": object()})
    )
    tags = dict(definitions.resolve_job_def(f"shop_{job}").run_tags)
    with dg.instance_for_test(
        overrides={"run_retries": yaml.safe_load(INSTANCE.read_text())["run_retries"]}
    ) as instance:
        run = instance.add_run(DagsterRun(job_name=f"shop_{job}", tags=tags, status=dg.DagsterRunStatus.FAILURE))
        assert auto_reexecution_should_retry_run(instance, run, RunFailureReason.UNKNOWN) is again
        assert not auto_reexecution_should_retry_run(instance, run, RunFailureReason.STEP_FAILURE), "it has said why"
