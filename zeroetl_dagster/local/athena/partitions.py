"""Hive's statements about partitions: ADD, DROP and RENAME PARTITION, MSCK REPAIR, SHOW PARTITIONS."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zeroetl_dagster.local.athena.errors import QueryFailed
from zeroetl_dagster.local.athena.relations import objects_at
from zeroetl_dagster.local.athena.writing import escaped
from zeroetl_dagster.local.aws.errors import AwsError
from zeroetl_dagster.local.aws.s3_objects import split_url

if TYPE_CHECKING:
    from zeroetl_dagster.local.athena.utilities import Context

Lines = tuple[list[str], list[str]]  # the names of the columns, the lines
NOTHING: Lines = ([], [])


def add_partitions(context: Context) -> Lines:
    table = context.table()
    for spec, location in parsed_specs(context.parts["partitions"]):
        values = values_of(table, spec)
        place = location or _place(table["StorageDescriptor"]["Location"], table, values)
        try:
            context.catalogue.create_partition(table, _partition_input(table, values, place))
        except AwsError as error:
            if error.code != "AlreadyExistsException" or not context.parts["exists"]:
                raise
    return NOTHING


def drop_partitions(context: Context) -> Lines:
    table = context.table()
    keys = _keys(table)
    for spec, _ in parsed_specs(context.parts["partitions"]):
        doomed = [
            held["Values"]
            for held in context.catalogue.partitions(table["DatabaseName"], table["Name"])
            if spec.items() <= dict(zip(keys, held["Values"], strict=True)).items()
        ]
        if not doomed and not context.parts["exists"]:
            raise QueryFailed(f"FAILED: SemanticException [Error 10006]: Partition not found {_braced(spec)}")
        for values in doomed:
            context.catalogue.delete_partition(table["DatabaseName"], table["Name"], values)
    return NOTHING


def rename_partition(context: Context) -> Lines:
    table = context.table()
    old, new = (values_of(table, next(parsed_specs(context.parts[part]))[0]) for part in ("old", "new"))
    context.catalogue.replace_partition(table, old, {**held_partition(context, table, old), "Values": new})
    return NOTHING


def repair(context: Context) -> Lines:
    """Partitions that lie below the location as `key=value/` and are not in the catalogue (MSCK never removes)."""
    table = context.table()
    location = table["StorageDescriptor"]["Location"].rstrip("/") + "/"
    keys = _keys(table)
    found = sorted(set(_folders(context, location, keys, table["Name"])))
    known = {tuple(held["Values"]) for held in context.catalogue.partitions(table["DatabaseName"], table["Name"])}
    missing = [values for values in found if values not in known]
    same = context.environment.database == table["DatabaseName"]
    name = table["Name"] if same else f"{table['DatabaseName']}.{table['Name']}"
    shown = [f"{name}:{_path(keys, values)}" for values in missing]
    for values in missing:
        place = location + _path(keys, values)
        context.catalogue.create_partition(table, _partition_input(table, list(values), place))
    if not missing:
        return NOTHING
    added = [f"Repair: Added partition to metastore {line}" for line in shown]
    return [], ["Partitions not in metastore:\t" + "\t".join(shown), *added]


def show_partitions(context: Context) -> Lines:
    table = context.table()
    if not table["PartitionKeys"]:
        raise QueryFailed(f"FAILED: SemanticException [Error 10111]: Table {table['Name']} is not a partitioned table")
    held = context.catalogue.partitions(table["DatabaseName"], table["Name"])
    return ["partition"], sorted(_path(_keys(table), partition["Values"]) for partition in held)


def parsed_specs(text: str) -> Iterator[tuple[dict[str, str], str | None]]:
    """`PARTITION (k = 'v', ...) [LOCATION '...']`, one or several. Raises `QueryFailed` for anything else."""
    pattern = r"PARTITION\s*\((?P<spec>(?:[^()']|'(?:[^']|'')*')*)\)(?:\s*LOCATION\s*'(?P<location>[^']*)')?"
    pair = r"[`\"]?(\w+)[`\"]?\s*=\s*(?:'((?:[^']|'')*)'|([^,\s)]+))"
    rest = re.sub(pattern, "", text, flags=re.IGNORECASE).strip(" ,\n\t")
    if rest:
        raise QueryFailed(f"FAILED: ParseException line 1:1 mismatched input '{rest.split()[0]}'")
    for found in re.finditer(pattern, text, re.IGNORECASE):
        pairs = re.findall(pair, found["spec"])
        yield {key.lower(): (quoted or bare).replace("''", "'") for key, quoted, bare in pairs}, found["location"]


def values_of(table: Mapping[str, Any], spec: Mapping[str, str]) -> list[str]:
    keys = _keys(table)
    if set(spec) != set(keys):
        raise QueryFailed(
            f"FAILED: SemanticException Partition spec {_braced(spec)} contains non-partition columns or lacks some of "
            f"{keys}"
        )
    return [spec[key] for key in keys]


def held_partition(context: Context, table: Mapping[str, Any], values: list[str]) -> dict[str, Any]:
    held = context.catalogue.partition(table["DatabaseName"], table["Name"], values)
    if held is None:
        raise QueryFailed(f"FAILED: SemanticException [Error 10006]: Partition not found {values}")
    return held


def _folders(context: Context, location: str, keys: list[str], owner: str) -> Iterator[tuple[str, ...]]:
    prefix = split_url(location)[1]
    for item in objects_at(context.environment.objects, location, owner):
        folders = item.key[len(prefix) :].split("/")[:-1][: len(keys)]
        matches = [re.fullmatch(rf"{re.escape(k)}=(.*)", f) for k, f in zip(keys, folders, strict=False)]
        values = tuple(match[1] for match in matches if match is not None)
        if len(values) == len(keys):
            yield values


def _partition_input(table: Mapping[str, Any], values: list[str], location: str) -> dict[str, Any]:
    return {"Values": values, "StorageDescriptor": {**table["StorageDescriptor"], "Location": location}}


def _place(base: str, table: Mapping[str, Any], values: Sequence[str]) -> str:
    return f"{base.rstrip('/')}/{_path(_keys(table), values)}"


def _path(keys: Sequence[str], values: Sequence[str]) -> str:
    return "/".join(f"{key}={escaped(value)}" for key, value in zip(keys, values, strict=True))


def _keys(table: Mapping[str, Any]) -> list[str]:
    return [key["Name"] for key in table["PartitionKeys"]]


def _braced(spec: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{key}={value}" for key, value in spec.items()) + "}"
