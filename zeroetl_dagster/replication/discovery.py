"""The replicated tables with their columns, read from Redshift and kept as JSON between two readings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict

from zeroetl_dagster.replication.activity import Column, Session, read_columns, read_table_states
from zeroetl_dagster.replication.faults import ReplicationError
from zeroetl_dagster.settings.replication import TableName

Tables = Mapping[TableName, tuple[Column, ...]]


def discover(session: Session, integration_id: str, database: str) -> Tables:
    """Every table of an integration's database, in order of name; the columns of those that can be described.

    Raises `ReplicationError` when there is none, or when the user may see none.
    """
    states = read_table_states(session, integration_id, database)
    if not states:
        raise ReplicationError(
            f"Redshift shows no replicated table of {database}: is the database made (materialize the pipeline's "
            "`database`), and may the `watch` identity see the integration views (`zeroetl grants`)?"
        )
    columns = read_columns(session, database)
    return {name: columns.get(name, ()) for name in sorted(states)}


def dump(tables: Tables) -> str:
    """As JSON, stable: the same tables give the same text."""
    found = [{"table": list(name), "columns": [asdict(one) for one in columns]} for name, columns in tables.items()]
    return json.dumps({"version": 1, "tables": found}, indent=1)


def load(text: str) -> Tables:
    """What `dump` wrote. Raises `ReplicationError` for anything else."""
    try:
        return {
            TableName(*one["table"]): tuple(Column(**column) for column in one["columns"])
            for one in json.loads(text)["tables"]
        }
    except (ValueError, KeyError, TypeError) as error:
        raise ReplicationError(
            f"the defs state of the replicated tables cannot be read ({error!r}): `dg utils refresh-defs-state` "
            "writes it anew"
        ) from None
