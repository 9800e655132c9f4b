"""Checks of a pipeline's settings that need the data filter's grammar; same wording as any other setting's error."""

from __future__ import annotations

from typing import Any

from zeroetl_dagster.replication import data_filter
from zeroetl_dagster.replication.data_filter import DataFilter, DataFilterError
from zeroetl_dagster.replication.requirements import family
from zeroetl_dagster.settings.errors import SettingsError, parse
from zeroetl_dagster.settings.replication import IntegrationSettings, TableName


def load(data: Any, where: str) -> IntegrationSettings:
    """A pipeline's settings from plain data. Raises `SettingsError` with every problem's path."""
    settings = parse(IntegrationSettings, data, where)
    check(settings, where)
    return settings


def check(settings: IntegrationSettings, where: str) -> None:
    """Raises `SettingsError` for a filter that AWS would refuse, or that leaves out what is listed."""
    parsed = _filter(settings, where)
    if parsed is None:
        return
    database = settings.source.database
    if database is not None and not parsed.includes_database(database):
        raise SettingsError(
            f"{where}: `data_filter` includes no table of `source.database` {database!r}; add `include: {database}.*.*`"
        )
    if settings.tables == "discover":
        return
    left_out = [str(name) for name in settings.tables if not included(parsed, database, name)]
    if left_out:
        raise SettingsError(f"{where}: `tables` lists {', '.join(left_out)}, which `data_filter` leaves out: {parsed}")


def warnings(settings: IntegrationSettings) -> list[str]:
    """What is allowed and most likely not meant."""
    if settings.data_filter is None:
        return []
    return data_filter.parse(settings.data_filter, family(settings.source.engine)).warnings()


def included(parsed: DataFilter, database: str | None, name: TableName) -> bool:
    """Whether the filter lets a replicated table through (for MySQL its schema is the source's database)."""
    return parsed.includes(*name) if database is None else parsed.includes(database, *name)


def _filter(settings: IntegrationSettings, where: str) -> DataFilter | None:
    kind = family(settings.source.engine)
    if settings.data_filter is None:
        if kind == "postgresql" and settings.manage.integration == "ensure":
            raise SettingsError(
                f"{where}: `data_filter` is missing; engine {settings.source.engine} needs at least "
                f"`include: {settings.source.database}.*.*`"
            )
        return None
    try:
        return data_filter.parse(settings.data_filter, kind)
    except DataFilterError as error:
        raise SettingsError(f"{where}: `data_filter`: {error}") from None
