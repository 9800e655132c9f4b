"""Names: what a source table is called in S3, in Glue and in asset keys, and where two of them collide.

An export writes `DATABASE/SCHEMA.TABLE/` (MySQL: `DATABASE/DATABASE.TABLE/`) and turns backslash, backtick, double
quote and space into an underscore (Aurora guide, "Considerations for DB cluster snapshot exports"). Glue lower-cases
names; Athena accepts letters, digits and underscore. Both are lossy, so collisions are found, never guessed away.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_PATH_REPLACED = re.compile(r'[\\`" ]')
_GLUE_REPLACED = re.compile(r"[^a-z0-9_]")
_MAX_GLUE_NAME = 127  # a crawler cuts names at 128 (Glue guide, "How crawlers work"), SQL identifiers end at 127

TYPED_SUFFIX = "_typed"
LATEST_SUFFIX = "_latest"


@dataclass(frozen=True, order=True)
class SourceTable:
    """A table of the source database. `schema` is None for MySQL, which has none."""

    database: str
    schema: str | None
    name: str

    @property
    def label(self) -> str:
        """As the configuration writes it: `schema.table`, MySQL `table`."""
        return self.name if self.schema is None else f"{self.schema}.{self.name}"

    @property
    def key_path(self) -> tuple[str, str]:
        """The last two parts of the asset key: [schema, table], MySQL [database, table]."""
        return (self.schema if self.schema is not None else self.database, self.name)

    @property
    def folder(self) -> str:
        """Path below the export's own folder, without slashes at the ends."""
        return _PATH_REPLACED.sub("_", f"{self.database}/{self.key_path[0]}.{self.name}")

    @property
    def glue_name(self) -> str:
        """Name in Glue: folder `public.sales` is `public_sales`, as a crawler would call it.

        A name that loses more than its case and punctuation (non-ASCII letters, over 120 characters) ends in a hash of
        the true name, which does not depend on what other tables there are.
        """
        folder = f"{self.key_path[0]}.{self.name}"
        name = _GLUE_REPLACED.sub("_", folder.lower())
        if folder.isascii() and len(name) <= _MAX_GLUE_NAME - len(LATEST_SUFFIX):
            return name
        digest = hashlib.sha256(folder.encode()).hexdigest()[:8]
        return f"{name[: _MAX_GLUE_NAME - len(LATEST_SUFFIX) - 9]}_{digest}"


def parse_table(label: str, database: str, *, mysql: bool) -> SourceTable:
    """The table that a configuration's `schema.table` (MySQL: `table`) names."""
    if mysql:
        return SourceTable(database, None, label)
    schema, _, name = label.partition(".")
    return SourceTable(database, schema, name)


def parse_target(target: str, database: str, *, mysql: bool) -> SourceTable | None:
    """The table that `target` of an export's manifest names; None when it belongs to another database.

    PostgreSQL writes `database.schema.table`, MySQL `database.database.table` or `database.table`; a manifest entry of
    a skipped database has the database's name only (returned as None too: it is no table).
    """
    rest = target.removeprefix(f"{database}.")
    if rest == target:
        return None
    if mysql:
        return SourceTable(database, None, rest.removeprefix(f"{database}."))
    schema, dot, name = rest.partition(".")
    return SourceTable(database, schema, name) if dot else None


@dataclass(frozen=True)
class Collision:
    """Tables that would share one name in the catalogue."""

    name: str
    tables: tuple[SourceTable, ...]

    def __str__(self) -> str:
        labels = ", ".join(table.label for table in self.tables)
        return (
            f"{labels} would all be {self.name!r} in the catalogue. Give one of them a name of its own: "
            f"`catalogue: {{names: {{{self.tables[-1].label!r}: another_name}}}}`"
        )


def catalogue_names(
    tables: Iterable[SourceTable], overrides: Mapping[str, str]
) -> tuple[dict[SourceTable, str], list[Collision]]:
    """Name in Glue of each table, and the collisions; a table that collides gets no name.

    The views of a table (`…_typed`, `…_latest`) take part: `sales` and `sales_latest` collide too.
    """
    chosen = {table: overrides.get(table.label, table.glue_name) for table in tables}
    taken: dict[str, list[SourceTable]] = {}
    for table, name in sorted(chosen.items()):
        for relation in (name, name + TYPED_SUFFIX, name + LATEST_SUFFIX):
            taken.setdefault(relation, []).append(table)
    collisions = [Collision(name, tuple(users)) for name, users in taken.items() if len(users) > 1]
    bad = {table for collision in collisions for table in collision.tables}
    first: dict[tuple[SourceTable, ...], Collision] = {}
    for collision in collisions:
        first.setdefault(collision.tables, collision)
    return {table: name for table, name in chosen.items() if table not in bad}, list(first.values())


def slug(text: str, limit: int) -> str:
    """`text` as the beginning of an AWS identifier: lower-case letters, digits, single hyphens, a letter first."""
    cleaned = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if not cleaned or not cleaned[0].isalpha():
        cleaned = f"x{cleaned}"
    return cleaned[:limit].strip("-")
