"""The Data Catalog: databases, tables and partitions as documents, for the Glue API, the crawlers and Athena alike.

Names are lower-case, as Glue keeps them. Times are epoch seconds. A partition's key is its values, so it is found
without a search.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from zeroetl_dagster.local.aws.errors import AwsError

if TYPE_CHECKING:
    from zeroetl_dagster.local.store import Store

Document = dict[str, Any]


class Catalogue:
    """The catalogue of one account and Region."""

    def __init__(self, store: Store, account: str, region: str) -> None:
        self._store = store
        self._prefix = f"{account}/{region}/"
        self.account, self.region = account, region

    # ---- databases -----------------------------------------------------------------------------------------------

    def databases(self) -> list[Document]:
        return self._store.list("glue.database", self._prefix)

    def database(self, name: str) -> Document:
        """Raises `AwsError` EntityNotFoundException."""
        found = self._store.get("glue.database", self._key(name))
        if found is None:
            raise AwsError("EntityNotFoundException", f"Database {name.lower()} not found.")
        return found

    def create_database(self, given: Mapping[str, Any]) -> Document:
        name = given["Name"].lower()
        made = {**plain(given), "Name": name, "CreateTime": time.time(), "CatalogId": self.account}
        made.setdefault("CreateTableDefaultPermissions", [])
        if not self._store.insert("glue.database", self._key(name), made):
            raise AwsError("AlreadyExistsException", f"Database already exists: {name}")
        return made

    def update_database(self, name: str, given: Mapping[str, Any]) -> None:
        held = self.database(name)
        kept = {key: held[key] for key in ("Name", "CreateTime", "CatalogId")}
        self._store.put("glue.database", self._key(name), {**plain(given), **kept})

    def delete_database(self, name: str) -> None:
        """With its tables, as Glue does."""
        self.database(name)
        for table in self.tables(name):
            self.delete_table(name, table["Name"])
        self._store.delete("glue.database", self._key(name))

    # ---- tables --------------------------------------------------------------------------------------------------

    def tables(self, database: str) -> list[Document]:
        self.database(database)
        return self._store.list("glue.table", self._key(database) + "/")

    def table(self, database: str, name: str) -> Document:
        """Raises `AwsError` EntityNotFoundException."""
        found = self.find_table(database, name)
        if found is None:
            self.database(database)
            raise AwsError("EntityNotFoundException", f"Table {name.lower()} not found.")
        return found

    def find_table(self, database: str, name: str) -> Document | None:
        return self._store.get("glue.table", self._key(database, name))

    def create_table(self, database: str, given: Mapping[str, Any], created_by: str) -> Document:
        self.database(database)
        now, name = time.time(), given["Name"].lower()
        made = {
            "PartitionKeys": [],
            "Parameters": {},
            **plain(given),
            "Name": name,
            "DatabaseName": database.lower(),
            "CreateTime": now,
            "UpdateTime": now,
            "CreatedBy": created_by,
            "IsRegisteredWithLakeFormation": False,
            "CatalogId": self.account,
            "VersionId": "0",
        }
        if not self._store.insert("glue.table", self._key(database, name), made):
            raise AwsError("AlreadyExistsException", f"Table already exists: {name}")
        return made

    def update_table(self, database: str, given: Mapping[str, Any], name: str | None = None) -> Document:
        """Replace the definition; `name` is the present name where `given` renames."""
        held = self.table(database, name or given["Name"])
        kept = ("DatabaseName", "CreateTime", "CreatedBy", "IsRegisteredWithLakeFormation", "CatalogId")
        made = {
            "PartitionKeys": [],
            "Parameters": {},
            **plain(given),
            **{key: held[key] for key in kept},
            "Name": given["Name"].lower(),
            "UpdateTime": time.time(),
            "VersionId": str(int(held["VersionId"]) + 1),
        }
        self._store.put("glue.table", self._key(database, made["Name"]), made)
        if made["Name"] != held["Name"]:
            for partition in self.partitions(database, held["Name"]):
                self._put_partition({**partition, "TableName": made["Name"]})
            self.delete_table(database, held["Name"])
        return made

    def delete_table(self, database: str, name: str) -> None:
        self.table(database, name)
        for partition in self.partitions(database, name):
            self.delete_partition(database, name, partition["Values"])
        self._store.delete("glue.table", self._key(database, name))

    # ---- partitions ----------------------------------------------------------------------------------------------

    def partitions(self, database: str, table: str) -> list[Document]:
        return self._store.list("glue.partition", self._key(database, table) + "/")

    def partition(self, database: str, table: str, values: Iterable[str]) -> Document | None:
        return self._store.get("glue.partition", self._key(database, table, *values))

    def create_partition(self, table: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        """Raises `AwsError` InvalidInputException or AlreadyExistsException."""
        values = list(given.get("Values", []))
        if len(values) != len(table["PartitionKeys"]):
            raise AwsError(
                "InvalidInputException",
                f"The number of partition keys ({len(table['PartitionKeys'])}) does not match the number of partition "
                f"values ({len(values)}).",
            )
        made = self._partition(table, given, values)
        if not self._store.insert("glue.partition", self._partition_key(made), made):
            raise AwsError("AlreadyExistsException", "Partition already exists.")

    def replace_partition(self, table: Mapping[str, Any], values: list[str], given: Mapping[str, Any]) -> None:
        """Raises `AwsError` EntityNotFoundException."""
        held = self.partition(table["DatabaseName"], table["Name"], values)
        if held is None:
            raise AwsError("EntityNotFoundException", "Cannot find partition.")
        made = self._partition(table, given, list(given.get("Values", values)))
        made["CreationTime"] = held["CreationTime"]
        if made["Values"] != values:
            self.delete_partition(table["DatabaseName"], table["Name"], values)
        self._put_partition(made)

    def delete_partition(self, database: str, table: str, values: Iterable[str]) -> None:
        """Raises `AwsError` EntityNotFoundException."""
        if not self._store.delete("glue.partition", self._key(database, table, *values)):
            raise AwsError("EntityNotFoundException", "Cannot find partition.")

    def _partition(self, table: Mapping[str, Any], given: Mapping[str, Any], values: list[str]) -> Document:
        return {
            **plain(given),
            "Values": values,
            "DatabaseName": table["DatabaseName"],
            "TableName": table["Name"],
            "CreationTime": time.time(),
            "CatalogId": self.account,
        }

    def _put_partition(self, made: Document) -> None:
        self._store.put("glue.partition", self._partition_key(made), made)

    def _partition_key(self, made: Document) -> str:
        return self._key(made["DatabaseName"], made["TableName"], *made["Values"])

    def _key(self, *parts: str) -> str:
        names, values = parts[:2], parts[2:]
        return self._prefix + "/".join(
            [*(quote(n.lower(), safe="") for n in names), *(quote(v, safe="") for v in values)]
        )


def plain(given: Any) -> Any:
    """A request's structure as JSON: datetimes become epoch seconds."""
    if isinstance(given, Mapping):
        return {key: plain(value) for key, value in given.items() if value is not None}
    if isinstance(given, list):
        return [plain(value) for value in given]
    return given.timestamp() if isinstance(given, datetime.datetime) else given


def is_view(table: Mapping[str, Any]) -> bool:
    return table.get("TableType") == "VIRTUAL_VIEW"
