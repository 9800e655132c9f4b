"""Materialises one day's export in a process of its own, so that a test can kill it: `SETTINGS_AS_JSON DAY`."""

from __future__ import annotations

import sys

import dagster as dg

from zeroetl_dagster.connections.aws import Aws
from zeroetl_dagster.exports.assets import Pace, build_export
from zeroetl_dagster.settings.exports import SnapshotExportSettings

if __name__ == "__main__":
    settings = SnapshotExportSettings.model_validate_json(sys.argv[1])
    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize(
            [build_export(settings, Pace())],
            partition_key=sys.argv[2],
            instance=instance,
            resources={"own": Aws(name="own")},
        )
