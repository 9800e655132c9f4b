"""Each mart beside its equal elsewhere: read both, compare every row, show the first ones.

First the marts in Redshift beside the same query on the source, then those in Athena beside Redshift's. The connections
and the marts are those of the shipped pipelines, read from their YAML as the code location reads them.
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
from zeroetl_dagster.connections.athena import Athena
from zeroetl_dagster.connections.redshift import Redshift, RedshiftError
from zeroetl_dagster.connections.resources import Connection, build
from zeroetl_dagster.connections.sql import identifier, qualified
from zeroetl_dagster.marts.compile import for_source
from zeroetl_dagster.marts.redshift import relation_name
from zeroetl_dagster.settings.connections import ConnectionsSettings
from zeroetl_dagster.settings.errors import parse
from zeroetl_dagster.settings.exports import SnapshotExportSettings
from zeroetl_dagster.settings.marts import AthenaMartsSettings, RedshiftMartsSettings

_DEFS = Path(__file__).parent.parent.parent / "defs"
_SHOWN = 3
Row = tuple[Any, ...]


@dataclass(frozen=True)
class Side:
    """Where rows are from, in words for a person (`in Redshift`), and the rows."""

    where: str
    rows: list[Row]


@dataclass(frozen=True)
class Comparison:
    """One mart. `problem` is set where it could not be read."""

    mart: str
    columns: tuple[str, ...]
    left: Side
    right: Side
    problem: str = ""

    @property
    def equal(self) -> bool:
        return not self.problem and self.left.rows == self.right.rows

    def table(self) -> str:
        """The first rows of both sides, and the verdict."""
        if self.problem:
            return f"\n{self.mart}: {self.problem}"
        verdict = "equal" if self.equal else f"DIFFERENT ({len(self._differing())} rows differ)"
        counts = ", ".join(f"{len(side.rows):,} rows {side.where}" for side in (self.left, self.right))
        first = list(zip(self.left.rows, self.right.rows, strict=False))
        shown = first[:_SHOWN] if self.equal else [pair for pair in first if pair[0] != pair[1]][:_SHOWN]
        cells = [[*map(_short, left), "|", *map(_short, right)] for left, right in shown]
        heading = [*self.columns, "|", *self.columns]
        return "\n".join([f"\n{self.mart}: {counts}: {verdict}", *_aligned([heading, *cells])])

    def _differing(self) -> set[Row]:
        return set(self.left.rows) ^ set(self.right.rows)


def compare_all(source: Any) -> list[Comparison]:
    """Every mart in Redshift beside the source; `source` is a psycopg2 connection to the source database."""
    settings = _redshift_marts()
    warehouse = _connections()[settings.redshift]
    assert isinstance(warehouse, Redshift)
    compiled = compile_folder(settings, _DEFS / "tickit_marts")
    found = []
    for name, mart in compiled.items():
        with source, source.cursor() as cursor:
            cursor.execute(for_source(name, compiled))
            columns = tuple(column[0] for column in cursor.description)
            expected = Side("on the source", _normalised(cursor.fetchall()))
        try:
            rows = _in_redshift(warehouse, settings, relation_name(mart), columns)
            found.append(Comparison(name, columns, Side("in Redshift", rows), expected))
        except RedshiftError as error:
            found.append(Comparison(name, columns, Side("in Redshift", []), expected, str(error)))
    return found


def compare_engines() -> list[Comparison]:
    """Every mart that the shipped export holds against its twin: Athena's rows beside Redshift's.

    Raises `AthenaError` or `RedshiftError` where one cannot be read.
    """
    export = parse(SnapshotExportSettings, _attributes("tickit_export"), "tickit_export")
    lake_marts = parse(AthenaMartsSettings, _attributes("tickit_lake_marts"), "tickit_lake_marts")
    settings = _redshift_marts()
    connections = _connections()
    athena, warehouse = connections[lake_marts.athena], connections[settings.redshift]
    assert isinstance(athena, Athena) and isinstance(warehouse, Redshift) and export.reconcile is not None
    compiled = compile_folder(settings, _DEFS / "tickit_marts")
    found = []
    for pair in export.reconcile.marts:
        name, twin = pair.athena.rpartition("/")[2], pair.redshift.rpartition("/")[2]
        answer = athena.query(f"SELECT * FROM {qualified(lake_marts.database, name)}").rows
        columns = tuple(answer.columns)
        rows = _in_redshift(warehouse, settings, relation_name(compiled[twin]), columns)
        found.append(Comparison(name, columns, Side("in Athena", _normalised(answer.rows)), Side("in Redshift", rows)))
    return found


def _in_redshift(
    warehouse: Redshift, settings: RedshiftMartsSettings, relation: str, columns: Sequence[str]
) -> list[Row]:
    with warehouse.session("marts", database=settings.database) as session:
        listed = ", ".join(identifier(column) for column in columns)
        return _normalised(session.query(f"SELECT {listed} FROM {relation}").rows)


def _redshift_marts() -> RedshiftMartsSettings:
    return parse(RedshiftMartsSettings, _attributes("tickit_marts"), "tickit_marts")


def _connections() -> dict[str, Connection]:
    return build(parse(ConnectionsSettings, _attributes("connections"), "connections"))


def _attributes(component: str) -> Any:
    return yaml.safe_load((_DEFS / component / "defs.yaml").read_text())["attributes"]


def _normalised(rows: Sequence[Sequence[Any]]) -> list[Row]:
    """Sorted, numbers by value: 1.50 and 1.5 are equal, and so are an integer and a decimal of one value."""
    return sorted((tuple(_value(value) for value in row) for row in rows), key=_order)


def _order(row: Row) -> tuple[Any, ...]:
    """Numbers by size, nulls last, whatever else a column holds by its kind."""
    return tuple((value is None, type(value).__name__, 0 if value is None else value) for value in row)


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
