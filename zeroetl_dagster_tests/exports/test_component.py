"""The `SnapshotExport` component, from YAML to definitions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster.components.testing import create_defs_folder_sandbox

from zeroetl_dagster.components import Connections, SnapshotExport
from zeroetl_dagster.components.snapshot_export import _TEMPLATE
from zeroetl_dagster.exports.names import SourceTable
from zeroetl_dagster.settings.errors import SettingsError
from zeroetl_dagster.settings.exports import SnapshotExportSettings
from zeroetl_dagster_tests.exports.conftest import settings_of
from zeroetl_dagster_tests.exports.fakes import SALES, FakeAws, FakeRds, FakeS3, write_export

ATTRIBUTES: dict[str, Any] = {
    "name": "shop",
    "aws": "own",
    "athena": "lake",
    "source": {"cluster": "shop", "engine": "aurora-postgresql", "database": "shop"},
    "bucket": "lake",
    "prefix": "exports",
    "kms_key": "alias/export",
    "export_role": "arn:aws:iam::123456789012:role/export",
    "tables": ["public.sales", "public.users"],
    "catalogue": {"database": "shop_lake"},
    "start_date": "2024-04-01",
}
CONNECTIONS = {"aws": {"own": {"region": "eu-west-1"}}, "athena": {"lake": {"aws": "own"}}}


def load(attributes: dict[str, Any]) -> tuple[SnapshotExport, dg.Definitions]:
    with create_defs_folder_sandbox() as sandbox:
        for component, values in ((Connections, CONNECTIONS), (SnapshotExport, attributes)):
            name = f"zeroetl_dagster.components.{component.__name__}"
            path = sandbox.scaffold_component(component_cls=component, defs_path=component.__name__.lower())
            (path / "defs.yaml").write_text(yaml.safe_dump({"type": name, "attributes": values}))
        with sandbox.build_all_defs() as definitions:
            pass
        with sandbox.load_component_and_build_defs(defs_path=Path("snapshotexport")) as (found, _):
            assert isinstance(found, SnapshotExport)
            return found, definitions


def test_listed_tables_become_assets_with_everything_around_them() -> None:
    _, definitions = load(ATTRIBUTES)
    keys = {key.to_user_string() for key in definitions.resolve_asset_graph().get_all_asset_keys()}
    assert keys == {"shop/export", "shop/catalogue", "shop/public/sales", "shop/public/users"}
    assert {job.name for job in definitions.jobs or []} == {"shop__export_job"}
    assert {s.name for s in definitions.sensors or []} == {"shop__export_sensor"}
    assert {s.name for s in definitions.schedules or []} == {"shop__export_schedule"}
    assert definitions.get_repository_def()


def test_without_a_state_all_tables_are_the_export_and_its_catalogue() -> None:
    _, definitions = load({**ATTRIBUTES, "tables": "all"})
    keys = {key.to_user_string() for key in definitions.resolve_asset_graph().get_all_asset_keys()}
    assert keys == {"shop/export", "shop/catalogue"}


def test_a_bad_value_names_the_file_and_the_path() -> None:
    with pytest.raises(Exception, match="snapshotexport") as caught:
        load({**ATTRIBUTES, "bucketname": "x"})
    assert "defs.yaml: `bucketname` is not known here (did you mean" in str(caught.value.__cause__)


class Connected(SnapshotExport):
    """With clients instead of connections."""

    clients: dict[str, Any] = {}

    def _client(self, connection: str, service: str) -> Any:
        return FakeAws(self.clients).client(service)


def state(tmp_path: Path, rds: FakeRds, s3: FakeS3, settings: SnapshotExportSettings) -> list[dict[str, Any]]:
    component = Connected(settings)
    component.clients = {"rds": rds, "s3": s3}
    component.write_state_to_path(tmp_path / "deep" / "state")
    return json.loads((tmp_path / "deep" / "state").read_text())


def test_the_state_holds_the_tables_of_the_newest_complete_export(tmp_path: Path, rds: FakeRds, s3: FakeS3) -> None:
    for name in ("shop-20240430-aa-1", "shop-20240501-bb-1", "other-20240502-cc-1", "shop-20240502-dd-1"):
        rds.start_export_task(
            ExportTaskIdentifier=name, SourceArn=name, S3BucketName="lake", IamRoleArn="r", KmsKeyId="k"
        )
        rds.tasks[name]["Status"] = "FAILED" if "-dd-" in name else "COMPLETE"
        write_export(s3, name, {"public.sales": SALES, f"public.t{name[5:13]}": SALES})
    tables = state(tmp_path, rds, s3, settings_of(tables="all"))
    assert [t["name"] for t in tables] == ["sales", "t20240501"]
    found = SnapshotExport(settings_of(tables="all"))
    definitions = found.build_defs_from_state(None, tmp_path / "deep" / "state")  # type: ignore[arg-type]
    made = dg.Definitions.merge(definitions, dg.Definitions(resources={"own": object(), "lake": object()}))
    assert len(list(made.resolve_all_asset_keys())) == 4


def test_before_the_first_export_the_state_is_empty(tmp_path: Path, rds: FakeRds, s3: FakeS3) -> None:
    assert state(tmp_path, rds, s3, settings_of(tables="all")) == []


def test_listed_tables_are_their_own_state(tmp_path: Path) -> None:
    component = SnapshotExport(settings_of())
    component.write_state_to_path(tmp_path / "state")
    assert json.loads((tmp_path / "state").read_text()) == [vars(SourceTable("shop", "public", "sales"))]


def test_a_connection_that_nobody_declares_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no `Connections` component declares 'own'"):
        SnapshotExport(settings_of(tables="all")).write_state_to_path(tmp_path / "state")


def test_the_connections_of_the_project_are_used_for_the_state() -> None:
    component, _ = load({**ATTRIBUTES, "tables": "all"})
    assert component._client("own", "rds").meta.region_name == "eu-west-1"


def test_the_scaffold_is_valid() -> None:
    attributes = yaml.safe_load(_TEMPLATE)["attributes"]
    assert SnapshotExportSettings.model_validate(attributes).name == "shop_export"
