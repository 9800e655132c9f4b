"""The `ZeroEtlIntegration` component in YAML: what it builds, what it refuses, and tables that it discovers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster.components.testing import create_defs_folder_sandbox

from zeroetl_dagster.components import Connections, ZeroEtlIntegration
from zeroetl_dagster.connections.resources import build
from zeroetl_dagster.replication import discovery
from zeroetl_dagster.replication.activity import Column
from zeroetl_dagster.replication.faults import ReplicationError
from zeroetl_dagster.settings.asset_keys import asset_key_part
from zeroetl_dagster.settings.connections import ConnectionsSettings
from zeroetl_dagster.settings.errors import SettingsError, parse
from zeroetl_dagster.settings.replication import TableName

CONNECTIONS = {"aws": {"own": {"region": "eu-west-1"}}, "redshift": {"warehouse": {"aws": "own", "workgroup": "w"}}}
ATTRIBUTES: dict[str, Any] = {
    "name": "shop",
    "redshift": "warehouse",
    "source": {"engine": "aurora-postgresql", "cluster": "shop", "database": "shop"},
    "target": {"database": "shop_zetl"},
    "data_filter": "include: shop.public.*",
    "tables": ["public.orders", 'public."Order Lines"'],
}
FOUND = {
    TableName("public", "orders"): (Column("id", "bigint", False), Column("total", "numeric(8,2)", True)),
    TableName("public", "lines"): (),
}


def load(attributes: dict[str, Any], state: str | None = None) -> dg.Definitions:
    """The definitions of a project with this component, or of what the component makes of a state."""
    with create_defs_folder_sandbox() as sandbox:
        for component, values in ((Connections, CONNECTIONS), (ZeroEtlIntegration, attributes)):
            path = sandbox.scaffold_component(component_cls=component, defs_path=component.__name__.lower())
            name = f"zeroetl_dagster.components.{component.__name__}"
            (path / "defs.yaml").write_text(yaml.safe_dump({"type": name, "attributes": values}))
        with sandbox.build_all_defs() as definitions:
            if state is None:
                return definitions
        with sandbox.load_component_and_build_defs(defs_path=Path("zeroetlintegration")) as (loaded, _):
            assert isinstance(loaded, ZeroEtlIntegration)
            path = Path(sandbox.project_root) / "state"
            path.write_text(state)
            resources = dict(build(parse(ConnectionsSettings, CONNECTIONS, "connections")))
            made = loaded.build_defs_from_state(None, path)  # type: ignore[arg-type]
            return dg.Definitions.merge(made, dg.Definitions(resources=resources))


def keys(definitions: dg.Definitions) -> set[str]:
    return {key.to_user_string() for key in definitions.resolve_asset_graph().get_all_asset_keys()}


STEPS = {"shop/source", "shop/target", "shop/integration", "shop/database"}


def test_listed_tables_become_assets_by_their_redshift_names() -> None:
    assert keys(load(ATTRIBUTES)) == STEPS | {"shop/public/orders", "shop/public/Order_Lines_d02b9b46"}


def test_a_key_tells_every_name_apart_and_the_true_one_stays_in_sight() -> None:
    odd = ["a b", "a.b", "a-b", "a_b", "größe", "größe ", "'", "$", "日本", "a/b"]
    assert len({asset_key_part(name) for name in odd}) == len(odd)
    quoted = [f'public."{name}"' for name in odd]
    definitions = load({**ATTRIBUTES, "data_filter": "include: shop.*.*", "tables": quoted})
    tables = [spec for spec in definitions.resolve_all_asset_specs() if len(spec.key.path) > 2]
    assert {spec.metadata["dagster/table_name"] for spec in tables} == {f"shop_zetl.public.{name}" for name in odd}


def test_the_scaffolded_yaml_is_right() -> None:
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(component_cls=ZeroEtlIntegration, defs_path="shop")
        written = yaml.safe_load((path / "defs.yaml").read_text())
        assert keys(load(written["attributes"])) == STEPS | {"shop/public/orders"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sensor": {"intervall_seconds": 5}}, "is not known here (did you mean `interval_seconds`?)"),
        ({"source": {"engine": "aurora-oracle", "cluster": "c"}}, "`source.engine` is 'aurora-oracle'; allowed: 'aur"),
        ({"source": {"engine": "aurora-mysql", "cluster": "c", "database": "d"}}, "takes no `database`"),
        ({"source": {"engine": "postgres", "cluster": "c", "database": "d"}}, "engine postgres needs `instance`"),
        ({"tables": ["orders"]}, "'orders' is not `schema.table`"),
        ({"tables": ["public.a", "public.a"]}, "lists public.a more than once"),
        ({"tables": []}, "lists no table"),
        ({"data_filter": "include: shop.public.x"}, 'lists public.orders, public."Order Lines", which `data_filter`'),
        ({"data_filter": "includes: shop.*.*"}, "`data_filter`"),
        ({"data_filter": None}, "is missing; engine aurora-postgresql needs at least `include: shop.*.*`"),
        ({"data_filter": "include: other.public.*"}, "includes no table of `source.database` 'shop'"),
        ({"name": "my shop"}, "`name` is 'my shop'; letters, digits and _ only"),
        ({"target": {}}, "`target.database` is missing"),
        ({"integration_name": "-x"}, "`integration_name`"),
        ({"tags": {"zeroetl:x": "y"}}, "are reserved"),
        ({"checks": {"source_login": {"secret": "managed", "user": "u"}}}, "`checks.source_login`: give `secret`, or"),
        ({"manage": {"database": "replace"}}, "`manage.database` is 'replace'; allowed: 'ensure' or 'verify'"),
    ],
)  # fmt: skip
def test_a_bad_value_is_one_message_with_its_path(change: dict[str, Any], said: str) -> None:
    with pytest.raises(Exception) as caught:
        load({**ATTRIBUTES, **change})
    error: BaseException | None = caught.value
    while error is not None and not isinstance(error, SettingsError):
        error = error.__cause__ or error.__context__
    assert error is not None, caught.value
    assert said in str(error)
    assert "zeroetlintegration" in str(error), "the message names the file"


def test_before_tables_were_discovered_the_pipeline_can_be_provisioned() -> None:
    assert keys(load({**ATTRIBUTES, "tables": "discover"})) == STEPS


def test_discovered_tables_come_with_their_columns() -> None:
    definitions = load({**ATTRIBUTES, "tables": "discover"}, state=discovery.dump(FOUND))
    assert keys(definitions) == STEPS | {"shop/public/orders", "shop/public/lines"}
    schema = definitions.resolve_asset_graph().get(dg.AssetKey(["shop", "public", "orders"])).metadata
    assert [(c.name, c.type) for c in schema["dagster/column_schema"].columns] == [
        ("id", "bigint"),
        ("total", "numeric(8,2)"),
    ]


def test_discovered_tables_are_kept_as_they_were_found() -> None:
    assert discovery.load(discovery.dump(FOUND)) == FOUND


@pytest.mark.parametrize("text", ["", "{}", '{"tables": [{"table": ["a"]}]}', "[1]"])
def test_a_spoiled_state_says_how_to_mend_it(text: str) -> None:
    with pytest.raises(ReplicationError, match="refresh-defs-state"):
        discovery.load(text)


def test_the_row_count_check_is_there_only_where_it_can_log_in() -> None:
    def names(attributes: dict[str, Any]) -> set[str]:
        return {key.name for key in load(attributes).resolve_asset_graph().asset_check_keys}

    assert "row_count" not in names(ATTRIBUTES)
    assert "row_count" in names({**ATTRIBUTES, "checks": {"source_login": {"secret": "managed"}}})
    assert "not_empty" not in names({**ATTRIBUTES, "checks": {"synced_but_empty": False}})
