"""What the provisioning assets leave as metadata."""

from __future__ import annotations

import dagster as dg
import pytest

from zeroetl_dagster.components.zero_etl_integration import build_zero_etl_definitions
from zeroetl_dagster.connections.reconciled import Difference, Outcome
from zeroetl_dagster.replication.assets import _changed
from zeroetl_dagster.replication.faults import explain_table
from zeroetl_dagster.replication.resources import warehouse_page
from zeroetl_dagster.settings.connections import RedshiftConnection
from zeroetl_dagster_tests.replication.conftest import Provisioned

HOME = "https://eu-west-1.console.aws.amazon.com/redshiftv2/home?region=eu-west-1"


@pytest.mark.parametrize(
    ("settings", "page"),
    [
        (RedshiftConnection(aws="a", workgroup="analytics"), f"{HOME}#serverless-workgroup?workgroup=analytics"),
        (RedshiftConnection(aws="a", cluster="my-ra3"), f"{HOME}#cluster-details?cluster=my-ra3"),
    ],
)
def test_the_targets_link_leads_to_the_workgroup_or_to_the_cluster(settings: RedshiftConnection, page: str) -> None:
    assert warehouse_page("eu-west-1", settings).url == page


def test_the_target_asset_carries_the_link(shop: Provisioned) -> None:
    definitions = dg.Definitions.merge(
        build_zero_etl_definitions(shop.settings, {}), dg.Definitions(resources={"warehouse": shop.redshift})
    )
    key = dg.AssetKey(["shop", "target"])
    result = definitions.resolve_job_def("shop_provision").execute_in_process(asset_selection=[key])
    (event,) = result.asset_materializations_for_node("shop__target")
    assert str(event.metadata["zeroetl/console"].value).endswith("#serverless-workgroup?workgroup=repl-shop")


def test_what_was_changed_is_told_without_the_advice_to_change_it() -> None:
    done = Outcome((Difference("parameter x", "off", "on", "Let this project do it."),), None)
    assert _changed(done, done)["zeroetl/changed"].value == "\n".join(["- parameter x: found off, required on"] * 2)
    assert _changed(Outcome((), None))["zeroetl/changed"].value == "none"


def test_a_table_that_is_gone_says_where_to_look() -> None:
    told = explain_table("Deleted", "")
    assert "`data_filter`" in told and "`tables`" in told
