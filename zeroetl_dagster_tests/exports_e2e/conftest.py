"""One embedded AWS for these tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from zeroetl_dagster_tests.exports_e2e.shop import Shop
from zeroetl_dagster_tests.folders import data_folder


@pytest.fixture(scope="package")
def shop() -> Iterator[Shop]:
    with data_folder("shop") as folder, pytest.MonkeyPatch.context() as patch:
        made = Shop(folder.root)
        for key, value in made.env.items():
            patch.setenv(key, value)
        for key in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            patch.delenv(key, raising=False)
        try:
            made.build()
            yield made
        finally:
            made.stop()
