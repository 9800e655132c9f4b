"""The `glue` service: the Data Catalog's operations; the crawlers' are in `glue_crawlers.py`."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable

from zeroetl_dagster.local.aws.errors import AwsError
from zeroetl_dagster.local.aws.glue_catalogue import Catalogue, Document
from zeroetl_dagster.local.aws.glue_crawlers import CrawlerOperations
from zeroetl_dagster.local.aws.glue_expression import compile_expression
from zeroetl_dagster.local.aws.identities import Identities
from zeroetl_dagster.local.aws.service import Call, Service, page


class Glue(CrawlerOperations, Service):
    """Databases, tables, partitions and crawlers."""

    name = "glue"

    # ---- databases -------------------------------------------------------------------------------------------------

    def create_database(self, call: Call) -> Document:
        catalogue_of(call).create_database(call.params["DatabaseInput"])
        return {}

    def get_database(self, call: Call) -> Document:
        return {"Database": catalogue_of(call).database(call.params["Name"])}

    def get_databases(self, call: Call) -> Document:
        return _paged(call, "DatabaseList", catalogue_of(call).databases())

    def update_database(self, call: Call) -> Document:
        catalogue_of(call).update_database(call.params["Name"], call.params["DatabaseInput"])
        return {}

    def delete_database(self, call: Call) -> Document:
        catalogue_of(call).delete_database(call.params["Name"])
        return {}

    # ---- tables ----------------------------------------------------------------------------------------------------

    def create_table(self, call: Call) -> Document:
        call.only("CatalogId", "DatabaseName", "Name", "TableInput", "PartitionIndexes")
        given = call.params.get("TableInput")
        if given is None:
            raise AwsError("InvalidInputException", "TableInput is required.")
        arn = Identities.of_world(call.world).caller(call.caller.access_key).arn
        catalogue_of(call).create_table(call.params["DatabaseName"], given, arn)
        return {}

    def get_table(self, call: Call) -> Document:
        return {"Table": catalogue_of(call).table(call.params["DatabaseName"], call.params["Name"])}

    def get_tables(self, call: Call) -> Document:
        tables = catalogue_of(call).tables(call.params["DatabaseName"])
        if wanted := call.params.get("Expression"):
            tables = [table for table in tables if name_matches(wanted, table["Name"])]
        return _paged(call, "TableList", tables)

    def search_tables(self, call: Call) -> Document:
        call.only("SearchText", "MaxResults", "NextToken")
        catalogue, text = catalogue_of(call), call.params.get("SearchText", "").strip('"').lower()
        tables = [t for d in catalogue.databases() for t in catalogue.tables(d["Name"]) if text in str(t).lower()]
        return _paged(call, "TableList", tables)

    def update_table(self, call: Call) -> Document:
        call.only("CatalogId", "DatabaseName", "Name", "TableInput", "SkipArchive", "VersionId", "Force")
        given = call.params.get("TableInput")
        if given is None:
            raise AwsError("InvalidInputException", "TableInput is required.")
        catalogue, database = catalogue_of(call), call.params["DatabaseName"]
        held = catalogue.table(database, call.params.get("Name") or given["Name"])
        if call.params.get("VersionId", held["VersionId"]) != held["VersionId"]:
            raise AwsError("ConcurrentModificationException", "Update table failed due to concurrent modifications.")
        catalogue.update_table(database, given, call.params.get("Name"))
        return {}

    def delete_table(self, call: Call) -> Document:
        catalogue_of(call).delete_table(call.params["DatabaseName"], call.params["Name"])
        return {}

    def batch_delete_table(self, call: Call) -> Document:
        catalogue, database = catalogue_of(call), call.params["DatabaseName"]
        catalogue.database(database)
        named = [{"TableName": name} for name in call.params["TablesToDelete"]]
        return _each(named, lambda item: catalogue.delete_table(database, item["TableName"]))

    # ---- partitions ------------------------------------------------------------------------------------------------

    def create_partition(self, call: Call) -> Document:
        catalogue, table = _table(call)
        catalogue.create_partition(table, call.params["PartitionInput"])
        return {}

    def batch_create_partition(self, call: Call) -> Document:
        catalogue, table = _table(call)
        given = [{"PartitionValues": p.get("Values", []), "input": p} for p in call.params["PartitionInputList"]]
        return _each(given, lambda item: catalogue.create_partition(table, item["input"]))

    def get_partition(self, call: Call) -> Document:
        catalogue, table = _table(call)
        found = catalogue.partition(table["DatabaseName"], table["Name"], call.params["PartitionValues"])
        if found is None:
            raise AwsError("EntityNotFoundException", "Cannot find partition.")
        return {"Partition": found}

    def batch_get_partition(self, call: Call) -> Document:
        catalogue, table = _table(call)
        wanted = [item["Values"] for item in call.params["PartitionsToGet"]]
        found = [catalogue.partition(table["DatabaseName"], table["Name"], values) for values in wanted]
        missing = [{"Values": values} for values, one in zip(wanted, found, strict=True) if one is None]
        return {"Partitions": [one for one in found if one is not None], "UnprocessedKeys": missing}

    def get_partitions(self, call: Call) -> Document:
        call.only(
            "CatalogId", "DatabaseName", "TableName", "Expression", "NextToken", "Segment", "MaxResults",
            "ExcludeColumnSchema",
        )  # fmt: skip
        catalogue, table = _table(call)
        found = catalogue.partitions(table["DatabaseName"], table["Name"])
        if text := call.params.get("Expression", "").strip():
            matches = compile_expression(text, table["PartitionKeys"])
            found = [partition for partition in found if matches(partition["Values"])]
        if segment := call.params.get("Segment"):
            number, total = segment["SegmentNumber"], segment["TotalSegments"]
            found = [partition for index, partition in enumerate(found) if index % total == number]
        if call.params.get("ExcludeColumnSchema"):
            for partition in found:
                partition.get("StorageDescriptor", {}).pop("Columns", None)
        return _paged(call, "Partitions", found, default=1000)

    def update_partition(self, call: Call) -> Document:
        catalogue, table = _table(call)
        catalogue.replace_partition(table, call.params["PartitionValueList"], call.params["PartitionInput"])
        return {}

    def batch_update_partition(self, call: Call) -> Document:
        catalogue, table = _table(call)
        given = [{"PartitionValueList": e["PartitionValueList"], "entry": e} for e in call.params["Entries"]]
        return _each(
            given,
            lambda item: catalogue.replace_partition(
                table, item["PartitionValueList"], item["entry"]["PartitionInput"]
            ),
        )

    def delete_partition(self, call: Call) -> Document:
        catalogue, table = _table(call)
        catalogue.delete_partition(table["DatabaseName"], table["Name"], call.params["PartitionValues"])
        return {}

    def batch_delete_partition(self, call: Call) -> Document:
        catalogue, table = _table(call)
        given = [{"PartitionValues": item["Values"]} for item in call.params["PartitionsToDelete"]]
        return _each(
            given,
            lambda item: catalogue.delete_partition(table["DatabaseName"], table["Name"], item["PartitionValues"]),
        )

    def get_partition_indexes(self, call: Call) -> Document:
        _table(call)
        return {"PartitionIndexDescriptorList": []}  # lookups need no index here, so none is ever made


def catalogue_of(call: Call) -> Catalogue:
    """The catalogue of the call. Raises `AwsError` for another account's (no resource sharing here)."""
    wanted = call.params.get("CatalogId", call.account)
    if wanted != call.account:
        raise AwsError("EntityNotFoundException", f"Catalog {wanted} is not shared with account {call.account}.")
    return Catalogue(call.world.store, call.account, call.region)


def _table(call: Call) -> tuple[Catalogue, Document]:
    catalogue = catalogue_of(call)
    return catalogue, catalogue.table(call.params["DatabaseName"], call.params["TableName"])


def _each(items: Iterable[Document], do: Callable[[Document], None]) -> Document:
    """A batch: what fails is an entry of Errors beside the name or values it was for."""
    errors = []
    for item in items:
        try:
            do(item)
        except AwsError as error:
            named = {key: value for key, value in item.items() if key[0].isupper()}
            errors.append({**named, "ErrorDetail": {"ErrorCode": error.code, "ErrorMessage": error.message}})
    return {"Errors": errors}


def name_matches(pattern: str, name: str) -> bool:
    """Glue takes a regular expression; clients (and Athena's JDBC driver) also send globs with `*`."""
    try:
        return re.fullmatch(pattern, name) is not None or fnmatch.fnmatchcase(name, pattern)
    except re.error:
        return fnmatch.fnmatchcase(name, pattern)


def _paged(call: Call, member: str, found: list[Document], *, default: int = 100) -> Document:
    items, token = page(found, call.params.get("MaxResults"), call.params.get("NextToken"), default=default)
    answer: Document = {member: items}
    return answer | ({"NextToken": token} if token else {})
