"""Connections as Dagster resources: users' own assets, Dagster's TemplatedSqlComponent, and names declared twice."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster.components.lib.sql_component.sql_client import SQLClient

from zeroetl_dagster.connections.resources import AthenaResource, AwsResource, RedshiftResource, build
from zeroetl_dagster.settings.connections import ConnectionsSettings
from zeroetl_dagster_tests.connections.conftest import NAME, Warehouse

SETTINGS = {
    "aws": {"prod": {"region": "eu-central-1"}},
    "redshift": {"warehouse": {"aws": "prod", "workgroup": NAME}},
    "athena": {"lake": {"aws": "prod"}},
}


def project(root: Path, name: str, path: pytest.MonkeyPatch, **files: str) -> dg.ComponentTree:
    """A code location; `files` are the texts of `defs/<key>/defs.yaml`."""
    path.syspath_prepend(str(root))
    (root / "pyproject.toml").write_text(
        f'[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "{name}"\n'
    )
    for folder, text in files.items():
        (root / name / "defs" / folder).mkdir(parents=True)
        (root / name / "defs" / folder / "defs.yaml").write_text(text)
    (root / name / "__init__.py").write_text("")
    (root / name / "defs" / "__init__.py").write_text("")
    return dg.ComponentTree.for_project(root)


def connections(**attributes: object) -> str:
    return yaml.safe_dump({"type": "zeroetl_dagster.components.Connections", "attributes": attributes})


def test_each_connection_is_a_resource_under_its_name() -> None:
    found = build(ConnectionsSettings.model_validate(SETTINGS))
    warehouse, lake = found["warehouse"], found["lake"]
    assert isinstance(found["prod"], AwsResource)
    assert isinstance(warehouse, RedshiftResource) and isinstance(warehouse, SQLClient)
    assert isinstance(lake, AthenaResource) and isinstance(lake, SQLClient)
    assert warehouse.aws is lake.aws is found["prod"]


def test_a_users_own_asset_takes_one(warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = project(
        tmp_path,
        "own_asset",
        monkeypatch,
        connections=connections(aws={"a": {}}, redshift={"w": {"aws": "a", "workgroup": NAME}}),
    )
    seen: list[object] = []

    @dg.asset
    def mine(w: dg.ResourceParam[RedshiftResource]) -> None:
        with w.session() as redshift:
            seen.append(redshift.query("SELECT current_user").rows[0][0])

    result = dg.materialize([mine], resources=dict(tree.build_defs().resources or {}))
    assert result.success and seen == ["admin"]


def test_dagsters_own_sql_component_works_with_them(warehouse: Warehouse) -> None:
    from dagster.components.lib.sql_component.sql_component import TemplatedSqlComponent

    resource = RedshiftResource(warehouse.redshift().settings, warehouse.redshift().aws, "warehouse")
    component = TemplatedSqlComponent(
        sql_template="CREATE TABLE {{ table }} AS SELECT '100 % ?' AS a, 7 AS b",
        sql_template_vars={"table": "templated"},
        connection=resource,
        assets=[dg.AssetSpec("templated")],
    )
    definitions = component.build_defs(dg.ComponentTree.for_test().load_context)
    (asset,) = definitions.assets or ()
    assert isinstance(asset, dg.AssetsDefinition)
    with resource.session() as session:
        session.execute("DROP TABLE IF EXISTS templated")
        assert dg.materialize([asset]).success
        assert session.query("SELECT a, b FROM templated").rows == [("100 % ?", 7)]
        session.execute("DROP TABLE templated")


def test_a_name_declared_by_two_components_is_refused_at_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = project(
        tmp_path,
        "twice",
        monkeypatch,
        first=connections(aws={"prod": {"region": "eu-central-1"}}),
        second=connections(aws={"prod": {"region": "eu-west-3"}, "other": {}}),
    )
    with pytest.raises(Exception) as found:
        tree.build_defs()
    causes: list[str] = []
    cause: BaseException | None = found.value
    while cause is not None:
        causes.append(str(cause))
        cause = cause.__cause__ or cause.__context__
    told = next(text for text in causes if "`prod`" in text)
    assert "first/defs.yaml" in told and "second/defs.yaml" in told
    assert "a name is a Dagster resource key: rename one" in told


def test_two_components_with_different_names_live_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = project(
        tmp_path, "side_by_side", monkeypatch, first=connections(aws={"one": {}}), second=connections(aws={"two": {}})
    )
    assert set(tree.build_defs().resources or {}) == {"one", "two"}
