"""The component in YAML, and the marts that are shipped."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster.components.scaffold.scaffold import NoParams

import zeroetl_dagster.defs.tickit_marts as shipped
from zeroetl_dagster.components.redshift_marts import (
    RedshiftMarts,
    RedshiftMartsScaffolder,
    build_mart_definitions,
    compile_folder,
)
from zeroetl_dagster.marts.assets import mart_key
from zeroetl_dagster.marts.compile import CompiledMart, TableRef, for_source
from zeroetl_dagster.marts.model import MartError
from zeroetl_dagster.settings.errors import SettingsError, parse
from zeroetl_dagster.settings.marts import RedshiftMartsSettings
from zeroetl_dagster_tests.marts.conftest import FakeWarehouse
from zeroetl_dagster_tests.marts.fake_redshift import FakeSession

FOLDER = Path(next(iter(shipped.__path__)))
MINIMAL = {"name": "m", "redshift": "warehouse", "schema": "m", "pipelines": {"tickit": "tickit_zetl"}}


def attributes() -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load((FOLDER / "defs.yaml").read_text())["attributes"]
    return found


@pytest.fixture(scope="module")
def tickit() -> dict[str, CompiledMart]:
    return compile_folder(parse(RedshiftMartsSettings, attributes(), "defs.yaml"), FOLDER)


def test_the_shipped_marts_read_what_they_say(tickit: dict[str, CompiledMart]) -> None:
    def tables(name: str) -> set[str]:
        assert all(t == TableRef("tickit", "public", t.table) for t in tickit[name].tables)
        return {t.table for t in tickit[name].tables}

    assert set(tickit) == {"best_venues", "revenue_by_city", "sales_by_event", "sales_by_week", "seller_success_rate"}
    assert tables("sales_by_event") == {"sales", "event", "category"}
    assert tables("seller_success_rate") == {"listing", "sales", "users"}
    assert tables("best_venues") == {"sales", "event", "venue"}
    assert tables("sales_by_week") == {"sales", "date"}
    assert tables("revenue_by_city") == {"users"} and tickit["revenue_by_city"].marts == ("best_venues",)


def test_the_shipped_marts_know_where_every_column_comes_from(tickit: dict[str, CompiledMart]) -> None:
    counted = {"orders", "listings", "events", "venues", "users"}
    for mart in tickit.values():
        assert set(mart.columns) - counted <= set(mart.lineage)


def test_the_shipped_marts_can_be_asked_of_the_source(tickit: dict[str, CompiledMart]) -> None:
    for name in tickit:
        sql = for_source(name, tickit)
        assert "tickit." not in sql and "public.sales" in sql.lower()


def test_the_component_builds_what_its_yaml_says() -> None:
    component = RedshiftMarts.from_attributes_dict(attributes=attributes())
    definitions = build_mart_definitions(component.settings, FOLDER)
    with_resource = dg.Definitions.merge(
        definitions, dg.Definitions(resources={"warehouse": FakeWarehouse(FakeSession())})
    )
    repository = with_resource.get_repository_def()
    names = {"best_venues", "revenue_by_city", "sales_by_event", "sales_by_week", "seller_success_rate"}
    assert {mart_key("tickit_marts", name) for name in names} <= repository.asset_graph.materializable_asset_keys
    assert repository.has_job("tickit_marts_refresh")
    assert repository.has_schedule_def("tickit_marts_nightly")
    assert not repository.sensor_defs


def test_the_sensor_and_the_nightly_net_are_a_matter_of_choice(tmp_path: Path) -> None:
    (tmp_path / "a.sql").write_text("select s.x as x from tickit.public.sales s")
    settings = parse(RedshiftMartsSettings, {**MINIMAL, "nightly": None, "refresh_sensor": "running"}, "x")
    definitions = build_mart_definitions(settings, tmp_path)
    assert [sensor.name for sensor in definitions.sensors or ()] == ["m_refresh_sensor"]
    assert not definitions.schedules


def test_a_mart_with_a_fault_stops_the_loading_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.sql").write_text("select 1 as x\nfrom nowhere.public.sales")
    with pytest.raises(MartError, match=r"a\.sql:2: 'nowhere' is no pipeline"):
        build_mart_definitions(parse(RedshiftMartsSettings, MINIMAL, "x"), tmp_path)


def test_what_the_scaffolder_writes_loads(tmp_path: Path) -> None:
    request: dg.ScaffoldRequest[NoParams] = dg.ScaffoldRequest(
        type_name="zeroetl_dagster.components.RedshiftMarts",
        target_path=tmp_path / "marts",
        scaffold_format="yaml",
        project_root=tmp_path,
        params=NoParams(),
    )
    RedshiftMartsScaffolder().scaffold(request)
    written = yaml.safe_load((tmp_path / "marts" / "defs.yaml").read_text())
    settings = parse(RedshiftMartsSettings, written["attributes"], "defs.yaml")
    assert list(compile_folder(settings, tmp_path / "marts")) == ["orders_by_day"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"materialised": "table"}, "`materialised` is not known here (did you mean `materialized`?)"),
        ({"materialized": "cube"}, "`materialized` is 'cube'; allowed: 'materialized_view', 'table' or 'view'"),
        ({"name": "my marts"}, "`name` is 'my marts'; letters, digits and _ only"),
        ({"pipelines": {}}, "`pipelines` is {}"),
        ({"schema": ""}, "`schema` is ''; a Redshift schema name has 1 to 127 bytes"),
        ({"database": "tickit_zetl"}, "pipelines.tickit: 'tickit_zetl' is the marts' own database"),
        ({"readers": ["analyst"]}, "'analyst' is neither `role:name`, `group:name`, `user:name` nor `public`"),
        ({"owners": ["bob"]}, "'bob' is neither `team:name` nor an e-mail address"),
        ({"retry": {"first_seconds": 9, "most_seconds": 1}}, "first_seconds (9) must not exceed most_seconds (1)"),
        ({"minimum_interval_seconds": -1}, "`minimum_interval_seconds` is -1"),
    ],
)
def test_a_bad_setting_is_one_message_with_its_path(change: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(RedshiftMartsSettings, {**MINIMAL, **change}, "defs.yaml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("defs.yaml: ")
