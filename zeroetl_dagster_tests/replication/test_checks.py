"""The checks as a run executes them, on a pipeline whose names must be quoted; counting while both sides move."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest

from zeroetl_dagster.components.zero_etl_integration import build_zero_etl_definitions
from zeroetl_dagster.replication import discovery, row_counts
from zeroetl_dagster.replication.faults import ReplicationError
from zeroetl_dagster.replication.resources import table_key
from zeroetl_dagster.replication.row_counts import Counted, SourceUnreachable
from zeroetl_dagster.settings.replication import ChecksSettings, SensorSettings, SourceLogin, SourceSettings, TableName
from zeroetl_dagster_tests.replication.conftest import Provisioned

Results = dict[tuple[str, str], dg.AssetCheckEvaluation]


def evaluate(shop: Provisioned, login: SourceLogin, **sensor: Any) -> Results:
    """Run the pipeline's `checks` job; the results by table and check."""
    changed = {"checks": ChecksSettings(source_login=login), "sensor": SensorSettings(**sensor)}
    settings = shop.settings.model_copy(update=changed)
    assert settings.tables != "discover"
    definitions = dg.Definitions.merge(
        build_zero_etl_definitions(settings, {table: () for table in settings.tables}),
        dg.Definitions(resources={"warehouse": shop.redshift}),
    )
    # the run fails by its blocking check: one table of the shop is never Synced
    result = definitions.resolve_job_def("shop_checks").execute_in_process(raise_on_error=False)
    assert not result.success
    names = {table_key("shop", table): table.table for table in settings.tables}
    return {
        (names.get(found.asset_key, found.asset_key.path[-1]), found.check_name): found
        for found in result.get_asset_check_evaluations()
    }


def test_every_table_is_checked_by_its_true_name_and_a_failed_one_tells_why(shop: Provisioned) -> None:
    shop.published()
    found = evaluate(shop, SourceLogin(secret="managed"))
    for table in ("plain", "UPPER", "Order Lines", 'q"uo.te', "Üm.läut", "empty"):
        for check in ("synced", "not_empty", "row_count"):
            assert found[table, check].passed, (table, check, found[table, check].description)
    assert found["Order Lines", "row_count"].description == "3 rows in Redshift, 3 at the source"
    assert found["empty", "not_empty"].description == "returns none; Redshift's own count is 0"
    keyless = found["keyless", "synced"]
    assert not keyless.passed and keyless.severity == dg.AssetCheckSeverity.ERROR
    assert "primary key" in (keyless.description or "")
    unread = found["keyless", "not_empty"]
    assert not unread.passed and unread.severity == dg.AssetCheckSeverity.WARN
    assert "not read: the table is not Synced" in (unread.description or "")
    assert "not compared: the table is not Synced" in (found["keyless", "row_count"].description or "")
    assert not found["integration", "no_failed_tables"].passed


def test_where_cloudwatch_is_silent_redshift_tells_of_failed_tables_and_lag(shop: Provisioned) -> None:
    found = evaluate(shop, SourceLogin(), metrics_namespace="Nothing/Here")
    failed, lag = found["integration", "no_failed_tables"], found["integration", "lag_within_bounds"]
    assert (failed.passed, failed.severity, failed.description) == (
        False,
        dg.AssetCheckSeverity.ERROR,
        "1 failed table",
    )
    assert lag.passed and "lag" in (lag.description or "")


def test_what_nobody_can_tell_has_not_passed(shop: Provisioned) -> None:
    target = shop.settings.target.model_copy(update={"database": "not_made_yet"})
    settings = shop.settings.model_copy(
        update={"target": target, "sensor": SensorSettings(metrics_namespace="Nothing/Here")}
    )
    definitions = dg.Definitions.merge(
        build_zero_etl_definitions(settings, {}), dg.Definitions(resources={"warehouse": shop.redshift})
    )
    result = definitions.resolve_job_def("shop_checks").execute_in_process()
    found = [one for one in result.get_asset_check_evaluations() if one.check_name != "active"]  # RDS tells that
    assert {one.check_name for one in found} == {"no_failed_tables", "lag_within_bounds"}
    for evaluation in found:
        assert (evaluation.passed, evaluation.severity) == (False, dg.AssetCheckSeverity.WARN)
        assert "not known" in (evaluation.description or "")


@pytest.mark.parametrize(
    ("login", "said"),
    [
        (SourceLogin(user="nobody", password_env="NO_SUCH_VARIABLE"), "NO_SUCH_VARIABLE"),
        (SourceLogin(secret="managed", endpoint="127.0.0.1:1"), "does not answer at 127.0.0.1:1"),
    ],
)
def test_a_source_that_cannot_be_asked_is_a_warning_that_says_so(
    shop: Provisioned, login: SourceLogin, said: str
) -> None:
    result = evaluate(shop, login)["plain", "row_count"]
    assert not result.passed and result.severity == dg.AssetCheckSeverity.WARN
    assert "not compared" in (result.description or "") and said in (result.description or "")


def test_without_a_managed_secret_the_message_names_the_settings() -> None:
    class Rds:
        def describe_db_clusters(self, **_: Any) -> dict[str, Any]:
            return {"DBClusters": [{"Endpoint": "e", "Port": 1}]}

    source = SourceSettings(engine="aurora-postgresql", cluster="c", database="d")
    with pytest.raises(SourceUnreachable, match="checks.source_login.secret"):
        with row_counts.connect(Rds(), None, source, SourceLogin(secret="managed")):
            pass


@pytest.mark.parametrize("secret", ["hunter2", '"hunter2"', '{"password": "hunter2"}'])
def test_a_secret_of_another_shape_is_told_and_not_shown(secret: str) -> None:
    class Aws:
        def describe_db_clusters(self, **_: Any) -> dict[str, Any]:
            return {"DBClusters": [{"Endpoint": "e", "Port": 1}]}

        def get_secret_value(self, **_: Any) -> dict[str, Any]:
            return {"SecretString": secret}

    source = SourceSettings(engine="aurora-postgresql", cluster="c", database="d")
    with pytest.raises(SourceUnreachable, match="arn:aws:x of .* is not JSON with `username`") as found:
        with row_counts.connect(Aws(), Aws(), source, SourceLogin(secret="arn:aws:x")):
            pass
    assert "hunter" not in str(found.value)


def test_a_login_that_aws_refuses_is_a_warning_too(shop: Provisioned) -> None:
    missing = "arn:aws:secretsmanager:ap-northeast-1:123456789012:secret:nothing-AbCdEf"
    result = evaluate(shop, SourceLogin(secret=missing))["plain", "row_count"]
    assert not result.passed and result.severity == dg.AssetCheckSeverity.WARN
    assert "not compared: look up the source and its login: ResourceNotFound" in (result.description or "")


def counter(*values: int) -> Callable[[], int]:
    given = iter(values)
    return lambda: next(given)


def test_counts_agree_once_redshift_has_one_that_the_source_had() -> None:
    slept: list[float] = []
    # the source grows while it is asked; Redshift follows two looks behind
    found = row_counts.compare(counter(10, 11, 12, 13), counter(8, 9, 11), tolerance=0, sleep=slept.append)
    assert found == Counted((10, 11, 12, 13), 11, 0) and found.agree
    assert slept == [row_counts.PAUSE_SECONDS] * 2
    assert str(found) == "11 rows in Redshift, 10 to 13 at the source"


def test_counts_that_stay_apart_are_told_after_the_last_try() -> None:
    found = row_counts.compare(lambda: 100, lambda: 90, tolerance=0.05, sleep=lambda _: None)
    assert not found.agree and len(found.source) == row_counts.ATTEMPTS + 1
    assert row_counts.compare(lambda: 100, lambda: 95, tolerance=0.05, sleep=lambda _: None).agree


def test_discovery_finds_every_table_with_its_columns(shop: Provisioned) -> None:
    with shop.session() as session:
        found = discovery.discover(session, shop.integration_id, shop.settings.target.database)
    assert set(found) == set(shop.settings.tables)
    types = {one.name: one.type for one in found[TableName("public", "plain")]}
    assert list(types) == ["id", "name", "price"]
    assert (types["id"], types["price"]) == ("integer", "numeric(8,2)")
    assert types["name"].startswith("character varying(")
    assert discovery.load(discovery.dump(found)) == found


def test_discovery_without_a_database_says_what_to_look_at(shop: Provisioned) -> None:
    with shop.session() as session, pytest.raises(ReplicationError, match="zeroetl grants"):
        discovery.discover(session, shop.integration_id, "nothing_here")
