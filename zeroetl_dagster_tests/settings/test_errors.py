"""Every wording of a wrong setting: where, what was found, what is allowed. The models here are the project's own."""

# ruff: noqa: E501 (one case a line)

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from zeroetl_dagster.settings.connections import ConnectionsSettings
from zeroetl_dagster.settings.errors import SettingsError, parse
from zeroetl_dagster.settings.exports import SnapshotExportSettings
from zeroetl_dagster.settings.marts import RedshiftMartsSettings
from zeroetl_dagster.settings.replication import IntegrationSettings

PIPELINE = {
    "name": "shop",
    "redshift": "warehouse",
    "source": {"engine": "aurora-postgresql", "cluster": "c", "database": "shop"},
    "target": {"database": "shop_zetl"},
}
MARTS = {"name": "m", "redshift": "warehouse", "schema": "m", "pipelines": {"shop": "shop_zetl"}}
EXPORT = {
    "name": "e",
    "aws": "a",
    "source": {"engine": "aurora-postgresql", "cluster": "c", "database": "d"},
    "bucket": "lake",
    "kms_key": "alias/x",
    "export_role": "arn:aws:iam::123456789012:role/x",
    "catalogue": {"mode": "register", "database": "lake"},
    "start_date": "2026-01-01",
}


def said(model: type[BaseModel], data: Any) -> str:
    with pytest.raises(SettingsError) as found:
        parse(model, data, "defs/x/defs.yaml")
    head, _, rest = str(found.value).partition(": ")
    assert head == "defs/x/defs.yaml"
    return rest


@pytest.mark.parametrize(
    ("model", "good"),
    [(IntegrationSettings, PIPELINE), (RedshiftMartsSettings, MARTS), (SnapshotExportSettings, EXPORT)],
)
def test_what_the_cases_below_start_from_is_right(model: type[BaseModel], good: dict[str, Any]) -> None:
    assert parse(model, good, "x").model_dump()["name"] == good["name"]


@pytest.mark.parametrize(
    ("model", "good", "change", "message"),
    [
        (IntegrationSettings, PIPELINE, {"redshift": 3}, "`redshift` is 3; it must be text (the Redshift connection, by name)"),
        (IntegrationSettings, PIPELINE, {"description": None, "redshift": None}, "`redshift` is empty; it must be text"),
        (IntegrationSettings, PIPELINE, {"redshift": ""}, "`redshift` is ''; it must not be empty"),
        (IntegrationSettings, PIPELINE, {"manage": {"database": "always"}}, "`manage.database` is 'always'; allowed: 'ensure' or 'verify'"),
        (IntegrationSettings, PIPELINE, {"manage": {"reboot_source": "often"}}, "`manage.reboot_source` is 'often'; it must be true or false"),
        (IntegrationSettings, PIPELINE, {"wait": {"tables_seconds": "1 h"}}, "`wait.tables_seconds` is '1 h'; it must be a whole number"),
        (IntegrationSettings, PIPELINE, {"wait": {"tables_seconds": 0}}, "`wait.tables_seconds` is 0; it must be greater than or equal to 1"),
        (IntegrationSettings, PIPELINE, {"wait": 60}, "`wait` is 60; it must hold settings: integration_seconds, reboot_seconds, tables_seconds"),
        (IntegrationSettings, PIPELINE, {"tags": ["x"]}, "`tags` is ['x']; it must be `name: value` pairs"),
        (IntegrationSettings, PIPELINE, {"tags": {"team": 1}}, "`tags.team` is 1; it must be text"),
        (IntegrationSettings, PIPELINE, {"sensor": {"intervall_seconds": 5}}, "`sensor.intervall_seconds` is not known here (did you mean `interval_seconds`?); allowed: default_status,"),
        (IntegrationSettings, PIPELINE, {"source": {"engine": "oracle"}}, "`source.engine` is 'oracle'; allowed: 'aurora-postgresql', 'aurora-mysql', 'postgres' or 'mysql'"),
        (IntegrationSettings, PIPELINE, {"checks": {"row_counts_tolerance": 2}}, "`checks.row_counts_tolerance` is 2; it must be less than or equal to 1 (allowed difference as a share of the source)"),
        (RedshiftMartsSettings, MARTS, {"schemma": "x"}, "`schemma` is not known here (did you mean `schema`?)"),
        (RedshiftMartsSettings, MARTS, {"readers": "analyst"}, "`readers` is 'analyst'; it must be a list (who may SELECT from the marts"),
        (RedshiftMartsSettings, MARTS, {"retry": {"first_seconds": "soon"}}, "`retry.first_seconds` is 'soon'; it must be a number"),
        (IntegrationSettings, PIPELINE, {"name": "my-shop"}, "`name` is 'my-shop'; letters, digits and _ only"),
        (IntegrationSettings, PIPELINE, {"integration_name": "a--b"}, "`integration_name` is 'a--b'; letters, digits and single hyphens"),
        (IntegrationSettings, PIPELINE, {"tables": "all"}, "`tables`: found 'all'; it must be a list of `schema.table`, or the word discover"),
        (IntegrationSettings, PIPELINE, {"tables": ["public.a", None]}, "`tables`: None is not `schema.table`"),
        (RedshiftMartsSettings, MARTS, {"name": "a-b"}, "`name` is 'a-b'; letters, digits and _ only"),
        (RedshiftMartsSettings, MARTS, {"schema": ""}, "`schema` is ''; a Redshift schema name has 1 to 127 bytes"),
        (RedshiftMartsSettings, MARTS, {"pipelines": {"shop": ""}}, "`pipelines`: the database of 'shop' is ''; a Redshift database has 1 to 127 bytes"),
        (RedshiftMartsSettings, MARTS, {"nightly": {"cron": "daily"}}, "`nightly.cron`: 'daily' is not a cron expression of five fields"),
        (RedshiftMartsSettings, MARTS, {"nightly": {"cron": "0 25 * * *"}}, "`nightly.cron`: '0 25 * * *': the hour is 25; it must be 0 to 23"),
        (RedshiftMartsSettings, MARTS, {"nightly": {"timezone": "Mars"}}, "`nightly.timezone`: 'Mars' is not a time zone name such as UTC"),
        (RedshiftMartsSettings, MARTS, {"tags": {"a b": "c"}}, "`tags`: 'a b': a tag's name may hold letters"),
        (RedshiftMartsSettings, MARTS, {"tags": {"a": "b c"}}, "`tags`: the value of 'a' is 'b c'; it may hold letters"),
        (RedshiftMartsSettings, MARTS, {"tags": {"dagster/a": "b"}}, "`tags`: 'dagster/a': tags beginning with dagster/ or zeroetl/ are reserved"),
        (SnapshotExportSettings, EXPORT, {"schedule": {"cron": "0 16 * *"}}, "`schedule.cron`: '0 16 * *' is not a cron expression of five fields"),
        (SnapshotExportSettings, EXPORT, {"tables": "some"}, "`tables` is 'some'; allowed: 'all'; or it must be a list"),
        (SnapshotExportSettings, EXPORT, {"start_date": "yesterday"}, "`start_date` is 'yesterday'; it must be a date, like 2026-01-31"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_told_with_its_path(
    model: type[BaseModel], good: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    assert said(model, {**good, **change}).startswith(message)


@pytest.mark.parametrize("cron", ["*/5 0-6,22 1 JAN-mar 7", "0 0 31 12 0", "@daily"])
def test_cron_expressions_that_dagster_takes(cron: str) -> None:
    settings = parse(RedshiftMartsSettings, {**MARTS, "nightly": {"cron": cron}}, "x")
    assert settings.nightly is not None and settings.nightly.cron == cron


@pytest.mark.parametrize(
    "login",
    ["hunter2", {"secret": "hunter2"}, {"user": "u", "password_env": "hunter-2"}, {"user": "u", "password": "hunter2"}],
)
def test_a_password_written_where_none_belongs_is_not_repeated(login: Any) -> None:
    redshift = {"redshift": {"w": {"aws": "a", "workgroup": "x", "admin": login}}}
    for told in (
        said(IntegrationSettings, {**PIPELINE, "checks": {"source_login": login}}),
        said(ConnectionsSettings, {"aws": {"a": {}}, **redshift}),
    ):
        assert "hunter" not in told and "password_env" in told


def test_what_is_missing_is_told_with_what_it_is() -> None:
    without = {key: value for key, value in PIPELINE.items() if key != "redshift"}
    assert said(IntegrationSettings, without) == "`redshift` is missing: the Redshift connection, by name"


@pytest.mark.parametrize(("data", "found"), [(None, "empty"), ([], "[]"), ("x", "'x'")])
def test_attributes_that_are_no_mapping(data: Any, found: str) -> None:
    assert said(ConnectionsSettings, data) == f"`attributes` is {found}; it must hold settings: athena, aws, redshift"


def test_all_problems_are_told_at_once() -> None:
    lines = said(IntegrationSettings, {**PIPELINE, "redshift": "", "wait": {"x": 1}, "name": "1st"}).splitlines()
    assert lines[0] == "3 settings are not right:"
    assert [line.split("`")[1] for line in lines[1:]] == ["name", "redshift", "wait.x"]


def test_a_long_value_is_shortened() -> None:
    told = said(IntegrationSettings, {**PIPELINE, "redshift": list(range(100))})
    assert len(told) < 200 and "…; it must be text" in told


def test_a_name_that_is_also_a_settings_name_does_not_lead_astray() -> None:
    data = {"aws": {"aws": {}}, "redshift": {"database": {"aws": "aws", "workgroup": "x", "workgruop": "y"}}}
    told = said(ConnectionsSettings, data)
    assert told.startswith(
        "`redshift.database.workgruop` is not known here (did you mean `workgroup`?); allowed: admin,"
    )


def test_settings_do_not_change_after_loading() -> None:
    settings = parse(ConnectionsSettings, {"aws": {"a": {}}}, "x")
    with pytest.raises(ValueError, match="frozen"):
        settings.aws = {}  # type: ignore[misc]
