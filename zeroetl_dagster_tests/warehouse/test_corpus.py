"""Redshift's documented answers, asked over the simple protocol, where results are text as Redshift writes it.

A case has its `rows` as text, the `names` of its columns, or the `error` (SQLSTATE, and words of the message).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import yaml

from zeroetl_dagster_tests.warehouse.conftest import Redshift

CORPUS: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "corpus.yaml").read_text())


@pytest.fixture(scope="module")
def connection(redshift: Redshift) -> Iterator[Any]:
    found = redshift.psycopg2()
    yield found
    found.close()


@pytest.mark.parametrize("case", [case for case in CORPUS if "error" not in case], ids=lambda case: case["sql"][:60])
def test_redshifts_answer(connection: Any, case: dict[str, Any]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(case["sql"])
        oids = [column.type_code for column in cursor.description]
        rows = [[_text(value, oid) for value, oid in zip(row, oids, strict=True)] for row in cursor.fetchall()]
        assert rows == case.get("rows", rows), case["source"]
        names = [column.name for column in cursor.description]
        assert names == case.get("names", names), case["source"]


@pytest.mark.parametrize("case", [case for case in CORPUS if "error" in case], ids=lambda case: case["sql"][:60])
def test_redshifts_refusal(connection: Any, case: dict[str, Any]) -> None:
    code, words = case["error"]
    with connection.cursor() as cursor, pytest.raises(psycopg2.Error) as found:
        cursor.execute(case["sql"])
    assert (found.value.pgcode, words in str(found.value)) == (code, True), f"{case['source']}: {found.value}"


def _text(value: Any, oid: int) -> str | None:
    if value is None:
        return None
    return ("t" if value else "f") if oid == 16 else f"{value:g}" if isinstance(value, float) else str(value)
