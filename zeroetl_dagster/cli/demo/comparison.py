"""Each mart beside the same query on the source: read both, compare every row, show the first ones.

The connections and the marts are those of the shipped pipeline, read from its YAML as the code location reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from zeroetl_dagster.components.redshift_marts import compile_folder
from zeroetl_dagster.connections.redshift import Redshift, RedshiftError
from zeroetl_dagster.connections.resources import build
from zeroetl_dagster.connections.sql import identifier
from zeroetl_dagster.marts.compile import for_source
from zeroetl_dagster.marts.redshift import relation_name
from zeroetl_dagster.settings.connections import ConnectionsSettings
from zeroetl_dagster.settings.errors import parse
from zeroetl_dagster.settings.marts import RedshiftMartsSettings

_DEFS = Path(__file__).parent.parent.parent / "defs"
_SHOWN = 3
Row = tuple[Any, ...]


@dataclass(frozen=True)
class Comparison:
    """One mart. `problem` is set where it could not be read."""

    mart: str
    columns: tuple[str, ...]
    in_mart: list[Row]
    in_source: list[Row]
    problem: str = ""

    @property
    def equal(self) -> bool:
        return not self.problem and self.in_mart == self.in_source

    def table(self) -> str:
        """The first rows of both sides, and the verdict."""
        if self.problem:
            return f"\n{self.mart}: {self.problem}"
        verdict = "equal" if self.equal else f"DIFFERENT ({len(self._differing())} rows differ)"
        lines = [
            f"\n{self.mart}: {len(self.in_mart):,} rows in Redshift, {len(self.in_source):,} on the source: {verdict}"
        ]
        first = list(zip(self.in_mart, self.in_source, strict=False))
        shown = first[:_SHOWN] if self.equal else [pair for pair in first if pair[0] != pair[1]][:_SHOWN]
        cells = [[*map(_short, mart), "|", *map(_short, source)] for mart, source in shown]
        return "\n".join([*lines, *_aligned([[*self.columns, "|", *self.columns], *cells])])

    def _differing(self) -> set[Row]:
        return set(self.in_mart) ^ set(self.in_source)


def compare_all(source: Any) -> list[Comparison]:
    """Every mart of the shipped pipeline; `source` is a psycopg2 connection to its source database."""
    settings = parse(RedshiftMartsSettings, _attributes("tickit_marts"), "tickit_marts")
    warehouse = build(parse(ConnectionsSettings, _attributes("connections"), "connections"))[settings.redshift]
    assert isinstance(warehouse, Redshift)
    compiled = compile_folder(settings, _DEFS / "tickit_marts")
    found = []
    for name, mart in compiled.items():
        with source, source.cursor() as cursor:
            cursor.execute(for_source(name, compiled))
            columns = tuple(column[0] for column in cursor.description)
            expected = _normalised(cursor.fetchall())
        try:
            with warehouse.session("marts", database=settings.database) as session:
                listed = ", ".join(identifier(column) for column in columns)
                actual = _normalised(session.query(f"SELECT {listed} FROM {relation_name(mart)}").rows)
            found.append(Comparison(name, columns, actual, expected))
        except RedshiftError as error:
            found.append(Comparison(name, columns, [], expected, str(error)))
    return found


def _attributes(component: str) -> Any:
    return yaml.safe_load((_DEFS / component / "defs.yaml").read_text())["attributes"]


def _normalised(rows: Sequence[Sequence[Any]]) -> list[Row]:
    """Sorted, numbers by value: 1.50 and 1.5 are equal, and so are an integer and a decimal of one value."""
    return sorted((tuple(_value(value) for value in row) for row in rows), key=repr)


def _value(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | float | Decimal):
        return Decimal(str(round(value, 6))).normalize()
    if isinstance(value, datetime | date):
        return value.isoformat()
    return value.rstrip(" ") if isinstance(value, str) else value


def _short(value: Any) -> str:
    text = "" if value is None else f"{value:f}" if isinstance(value, Decimal) else str(value)
    return text if len(text) <= 18 else text[:17] + "…"


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [min(max(len(row[n]) for row in rows), 18) for n in range(len(rows[0]))]
    return ["  " + "  ".join(cell[:18].ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
