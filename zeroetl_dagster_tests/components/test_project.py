"""What does not fit together in a project is one message at load: names, connections, marts and their pipelines."""

# ruff: noqa: E501 (one case a line)

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster.components.testing import create_defs_folder_sandbox

from zeroetl_dagster.components import AthenaMarts, Connections, RedshiftMarts, SnapshotExport, ZeroEtlIntegration
from zeroetl_dagster.marts.model import MartError
from zeroetl_dagster.settings.errors import SettingsError

CONNECTIONS = {
    "aws": {"own": {"region": "eu-west-1"}},
    "athena": {"lake": {"aws": "own", "workgroup": "w"}},
    "redshift": {"warehouse": {"aws": "own", "workgroup": "w"}, "other": {"aws": "own", "workgroup": "o"}},
}
READS = {"a": "select o.id as id from shop.public.orders o"}
One = tuple[type[dg.Component], dict[str, Any], dict[str, str]]


def pipeline(**changes: Any) -> One:
    source = {"engine": "aurora-postgresql", "cluster": "shop", "database": "shop"}
    attributes = {
        "name": "shop",
        "redshift": "warehouse",
        "source": source,
        "target": {"database": "shop_zetl"},
        "data_filter": "include: shop.*.*",
        "tables": ["public.orders", 'public."Lines"'],
    }
    return ZeroEtlIntegration, {**attributes, **changes}, {}


def marts(sql: dict[str, str] = READS, **changes: Any) -> One:
    attributes = {"name": "m", "redshift": "warehouse", "schema": "m", "pipelines": {"shop": "shop_zetl"}}
    return RedshiftMarts, {**attributes, **changes}, sql


def load(components: Sequence[One], connections: bool = True) -> set[str]:
    """The asset keys of a project with these components, each in a folder of its own."""
    given: list[One] = [(Connections, CONNECTIONS, {})] if connections else []
    with create_defs_folder_sandbox() as sandbox:
        for number, (component, attributes, sql) in enumerate([*given, *components]):
            path = sandbox.scaffold_component(component_cls=component, defs_path=f"c{number}")
            for file in path.glob("*.sql"):
                file.unlink()
            for name, text in sql.items():
                (path / f"{name}.sql").write_text(text)
            kind = f"zeroetl_dagster.components.{component.__name__}"
            (path / "defs.yaml").write_text(yaml.safe_dump({"type": kind, "attributes": attributes}))
        with sandbox.build_all_defs() as definitions:
            definitions.get_repository_def()
            return {key.to_user_string() for key in definitions.resolve_asset_graph().get_all_asset_keys()}


def refused(*components: One) -> str:
    with pytest.raises(Exception) as caught:
        load(components)
    error: BaseException | None = caught.value
    while error is not None and not isinstance(error, SettingsError | MartError):
        error = error.__cause__ or error.__context__
    assert error is not None, caught.value
    return str(error)


def test_what_fits_together_loads() -> None:
    second = pipeline(name="shop2", target={"database": "shop2_zetl"}, integration_name="shop-two")
    quoted = {"b": 'select l.id as id from shop.public."Lines" l'}
    found = load([pipeline(), second, marts(), marts(quoted, name="m2"), marts(name="m3", schema="m3")])
    assert {"m/a", "m2/b", "m3/a", "shop2/public/orders"} <= found


@pytest.mark.filterwarnings("ignore:Multiple components have the same defs state key")
@pytest.mark.parametrize("other", [pipeline(), marts(name="shop", nightly=None)])
def test_two_components_share_no_name(other: One) -> None:
    told = refused(pipeline(), other)
    assert f"`name` is 'shop', and so is that of the {other[0].__name__} in" in told and "rename one" in told


@pytest.mark.parametrize(
    ("components", "said"),
    [
        ([pipeline(redshift="warehose")], "`redshift` is 'warehose'; it must name a Redshift connection of a Connections component (did you mean 'warehouse'?); declared: other, warehouse"),
        ([pipeline(redshift="own")], "`redshift` is 'own', which is an AWS account; it must name a Redshift connection"),
        ([pipeline(aws="warehouse")], "`aws` is 'warehouse', which is a Redshift connection; it must name an AWS account"),
        ([marts(redshift="nowhere")], "`redshift` is 'nowhere'; it must name a Redshift connection"),
    ],
)  # fmt: skip
def test_a_connection_that_nobody_declares(components: list[One], said: str) -> None:
    assert said in refused(*components)


def test_connections_that_python_declares_are_not_looked_for() -> None:
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="resource with key 'warehouse'"):
        load([pipeline()], connections=False)


def test_one_relation_is_made_by_one_component() -> None:
    told = refused(pipeline(), marts(), marts(name="m2"))
    assert "m.a is made by" in told and "give one of them another `schema`" in told
    assert "m2/a" in load([pipeline(), marts(), marts(name="m2", redshift="other")]), "another warehouse"


def test_marts_know_the_database_that_their_pipeline_makes() -> None:
    told = refused(pipeline(), marts(pipelines={"shop": "shop_etl"}))
    assert "`pipelines.shop` is 'shop_etl'; the pipeline in" in told and "makes the database 'shop_zetl'" in told
    misnamed = {"a": "select o.id as id from store.public.orders o"}
    told = refused(pipeline(), marts(misnamed, pipelines={"store": "shop_zetl"}))
    assert "`pipelines.store` is 'shop_zetl', which is the database of the pipeline shop" in told


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("shop.public.order", "a.sql: shop.public.order is not among the `tables` of the ZeroEtlIntegration in"),
        ("shop.public.order", "(did you mean public.orders?)"),
        ("shop.public.Lines", "(did you mean public.Lines?)"),  # unquoted: lower case
    ],
)
def test_a_mart_that_would_wait_for_ever_is_refused(table: str, said: str) -> None:
    assert said in refused(pipeline(), marts({"a": f"select o.id as id from {table} o"}))


def test_with_discovered_tables_any_may_be_read() -> None:
    unknown = {"a": "select o.id as id from shop.public.whatever o"}
    assert "m/a" in load([pipeline(tables="discover"), marts(unknown)])


def export(**changes: Any) -> One:
    attributes = {
        "name": "shop",
        "aws": "own",
        "athena": "lake",
        "source": {"engine": "aurora-postgresql", "cluster": "shop", "database": "shop"},
        "bucket": "lake",
        "kms_key": "alias/shop",
        "export_role": "arn:aws:iam::111122223333:role/shop",
        "tables": ["public.orders"],
        "catalogue": {"database": "shop_lake"},
        "start_date": "2026-01-01",
    }
    return SnapshotExport, {**attributes, **changes}, {}


def lake_marts(sql: dict[str, str] = READS, **changes: Any) -> One:
    attributes = {"name": "lm", "athena": "lake", "database": "lm", "exports": ["shop"]}
    return AthenaMarts, {**attributes, **changes}, sql


def test_marts_of_an_export_that_nobody_declares_name_the_file() -> None:
    said = refused(export(), lake_marts(exports=["shopp"]))
    assert "defs.yaml: `exports` names 'shopp', which no SnapshotExport component is called" in said


def test_a_mart_of_a_table_that_is_not_exported_is_refused() -> None:
    sql = {"a": "select o.id as id from shop.public.order o"}
    said = refused(export(), lake_marts(sql))
    assert "a.sql: shop.public.order is not among the `tables` of the SnapshotExport in" in said
    assert "(did you mean public.orders?)" in said
    assert "lm/a" in load([export(tables="all"), lake_marts(sql)])


def test_one_relation_in_athena_is_made_by_one_component() -> None:
    told = refused(export(), lake_marts(), lake_marts(name="lm2"))
    assert "lm.a is made by" in told and "give one of them another `database`" in told
    assert "lm2/a" in load([export(), lake_marts(), lake_marts(name="lm2", database="lm2")])
