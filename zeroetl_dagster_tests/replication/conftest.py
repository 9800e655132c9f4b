"""What the tests of the replication room share: a control plane in this process, and one provisioned pipeline.

`bed` answers every RDS and Redshift call over HTTP within milliseconds and moves no data; `shop` is a whole pipeline on
the embedded AWS, made by this project's own code, with tables of odd names.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from zeroetl_dagster.connections.waiting import Backoff
from zeroetl_dagster_tests.local_aws.conftest import Bed

FAST = Backoff(0.02, 1, 0.02, 0)


@pytest.fixture
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    made = Bed(tmp_path_factory.mktemp("aws"))
    yield made
    made.stop()


@pytest.fixture
def said() -> list[str]:
    """What was reported to a person, in order: pass `said.append`."""
    return []
