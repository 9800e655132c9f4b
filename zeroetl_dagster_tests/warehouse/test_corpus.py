"""Redshift's documented answers, asked over the simple protocol, where results are text as Redshift writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from zeroetl_dagster_tests.warehouse.conftest import Redshift

CORPUS: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "corpus.yaml").read_text())


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case["sql"][:60])
def test_redshifts_answer(redshift: Redshift, case: dict[str, Any]) -> None:
    connection = redshift.psycopg2()
    with connection.cursor() as cursor:
        cursor.execute(case["sql"])
        oids = [column.type_code for column in cursor.description]
        rows = [[_text(value, oid) for value, oid in zip(row, oids, strict=True)] for row in cursor.fetchall()]
    connection.close()
    assert rows == case["rows"], case["source"]


def _text(value: Any, oid: int) -> str | None:
    if value is None:
        return None
    return ("t" if value else "f") if oid == 16 else f"{value:g}" if isinstance(value, float) else str(value)
