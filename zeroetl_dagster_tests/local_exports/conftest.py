"""One embedded RDS with one cluster, `source`, for all tests of exports; each has a database of its own in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from zeroetl_dagster_tests.folders import data_folder
from zeroetl_dagster_tests.local_exports.bed import Bed


@pytest.fixture(scope="package")
def bed() -> Iterator[Bed]:
    with data_folder("exports") as folder:
        made = Bed(folder.root)
        try:
            made.furnish()
            made.cluster("source")
            yield made
        finally:
            made.end()
