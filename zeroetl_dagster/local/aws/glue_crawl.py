"""One crawl: from the objects below a target to tables and partitions, and from those to the catalogue.

Where a table begins (Glue guide, "How crawlers work", "Setting crawler configuration options"): a folder whose files,
at one depth below it, all have similar schemas is a table, and the folders between are its partitions; where they
differ, each child is looked at by itself. So a crawler at the root of several exports makes a table of every table of
every export. `TableLevelConfiguration` puts the table at a level; `CombineCompatibleSchemas` ignores similarity.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from zeroetl_dagster.local.aws.glue_catalogue import Catalogue, Document
from zeroetl_dagster.local.aws.glue_formats import STORAGE, FileSchema, read_schema
from zeroetl_dagster.local.aws.s3_objects import Object, Objects, split_url

SIMILAR = 0.7  # the guide's partition threshold
DEFAULT_SAMPLE = 1000


class CrawlFailed(Exception):
    """The crawl ends FAILED with this message."""


class CrawlStopped(Exception):
    """Somebody called stop_crawler."""


@dataclass
class Folder:
    """A folder with the data files directly in it; `prefix` ends with a slash ("" is the bucket)."""

    bucket: str
    prefix: str
    files: list[Object] = field(default_factory=list)
    children: dict[str, Folder] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    @property
    def level(self) -> int:
        """1 is the bucket."""
        return 1 + self.prefix.count("/")

    @property
    def name(self) -> str:
        return self.prefix.rstrip("/").rsplit("/", 1)[-1] or self.bucket

    def leaves(self, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Folder]]:
        """Folders that have files, with the names on the way to them."""
        if self.files:
            yield path, self
        for name, child in sorted(self.children.items()):
            yield from child.leaves((*path, name))


@dataclass(frozen=True)
class FoundPartition:
    values: tuple[str, ...]
    location: str
    schema: FileSchema
    objects: tuple[Object, ...]


@dataclass(frozen=True)
class FoundTable:
    """A table as it is in S3; `location` ends with a slash unless it is one file."""

    name: str
    location: str
    schema: FileSchema
    keys: tuple[str, ...]
    partitions: tuple[FoundPartition, ...]
    objects: tuple[Object, ...]


# ---- reading -------------------------------------------------------------------------------------------------------


def find_tables(objects: Objects, target: Mapping[str, Any], configuration: Mapping[str, Any]) -> list[FoundTable]:
    """What lies below one S3 target. Raises `CrawlFailed`."""
    root = _tree(objects, target)
    grouping = configuration.get("Grouping", {})
    reader = _Reader(target.get("SampleSize", DEFAULT_SAMPLE), "TableGroupingPolicy" in grouping)
    level = grouping.get("TableLevelConfiguration")
    found = list(_tables_at_level(root, reader, level) if level else _tables(root, reader))
    return [table for table in found if table.schema.columns]


def _tree(objects: Objects, target: Mapping[str, Any]) -> Folder:
    try:
        bucket, prefix = split_url(target["Path"])
    except ValueError as error:
        raise CrawlFailed(str(error)) from None
    if objects.bucket(bucket) is None:
        raise CrawlFailed(f"The specified bucket does not exist: {bucket} (Service: AmazonS3; Status Code: 404)")
    if prefix and not prefix.endswith("/"):
        prefix += "/"
    excluded = [_glob(pattern) for pattern in target.get("Exclusions", [])]
    root = Folder(bucket, prefix)
    for item in objects.find(bucket, prefix):
        relative = item.key[len(prefix) :]
        name = relative.rsplit("/", 1)[-1]
        if item.size == 0 or not name or name.startswith(("_", ".")) or any(p.fullmatch(relative) for p in excluded):
            continue
        folder = root
        for part in relative.split("/")[:-1]:
            folder = folder.children.setdefault(part, Folder(bucket, f"{folder.prefix}{part}/"))
        folder.files.append(item)
    return root


def _glob(pattern: str) -> re.Pattern[str]:
    """Glue's globs, relative to the include path: * and ? within a folder, ** across, {a,b}, [a-z]."""
    parts = re.split(r"(\*\*|\*|\?|\{[^}]*\}|\[[^\]]*\])", pattern)
    known = {"**": ".*", "*": "[^/]*", "?": "[^/]"}

    def translated(part: str) -> str:
        if part.startswith("{"):
            return "(?:" + "|".join(re.escape(choice) for choice in part[1:-1].split(",")) + ")"
        if part.startswith("["):
            return "[" + part[1:-1].replace("!", "^", 1) + "]"
        return known.get(part) or re.escape(part)

    return re.compile("".join(translated(part) for part in parts), re.DOTALL)


class _Reader:
    """Schemas of folders; one opinion about what is similar."""

    def __init__(self, sample: int, combine: bool) -> None:
        self.sample, self.combine = sample, combine

    def similar(self, left: FileSchema, right: FileSchema) -> bool:
        return left.compatible(right) and (self.combine or left.similarity(right) >= SIMILAR)

    def of_files(self, folder: Folder) -> FileSchema | None:
        """The files directly in a folder as one schema; None where they differ or nobody knows them."""
        made: FileSchema | None = None
        for item in folder.files[: self.sample]:
            schema = read_schema(item.path)
            if schema is None or (made is not None and not self.similar(made, schema)):
                return None
            made = schema if made is None else made.union(schema)
        return made

    def of_subtree(self, folder: Folder) -> FileSchema | None:
        """The folder and all below as one table; None where it is none."""
        leaves = list(folder.leaves())
        if len({len(path) for path, _ in leaves}) != 1:
            return None
        return self.merged(leaf for _, leaf in leaves)

    def merged(self, leaves: Iterator[Folder]) -> FileSchema | None:
        made: FileSchema | None = None
        for leaf in leaves:
            schema = self.of_files(leaf)
            if schema is None or (made is not None and not self.similar(made, schema)):
                return None
            made = schema if made is None else made.union(schema)
        return made


def _tables(folder: Folder, reader: _Reader) -> Iterator[FoundTable]:
    schema = reader.of_subtree(folder)
    if schema is not None:
        yield _table(folder, schema, reader)
        return
    yield from _tables_of_files(folder, reader)
    for _, child in sorted(folder.children.items()):
        yield from _tables(child, reader)


def _tables_at_level(folder: Folder, reader: _Reader, level: int) -> Iterator[FoundTable]:
    """Tables are the folders of `level`, whatever is in them; what lies above it is found as usual."""
    if folder.level >= level:
        compatible = _Reader(reader.sample, combine=True)
        schema = compatible.merged(leaf for _, leaf in folder.leaves())
        if schema is not None:
            yield _table(folder, schema, compatible)
        return
    yield from _tables_of_files(folder, reader)
    for _, child in sorted(folder.children.items()):
        yield from _tables_at_level(child, reader, level)


def _tables_of_files(folder: Folder, reader: _Reader) -> Iterator[FoundTable]:
    """Files beside folders, or unlike each other: one table if they agree, else one each."""
    schema = reader.of_files(folder) if folder.files else None
    if schema is not None:
        alone = Folder(folder.bucket, folder.prefix, folder.files)
        yield _table(alone, schema, reader)
        return
    for item in folder.files:
        schema = read_schema(item.path)
        if schema is not None:
            name = item.key.rsplit("/", 1)[-1]
            yield FoundTable(_table_name(name), f"s3://{item.bucket}/{item.key}", schema, (), (), (item,))


def _table(folder: Folder, schema: FileSchema, reader: _Reader) -> FoundTable:
    leaves = list(folder.leaves())
    depth = max(len(path) for path, _ in leaves)
    leaves = [(path, leaf) for path, leaf in leaves if len(path) == depth]
    keys = tuple(_key_name([path[index] for path, _ in leaves], index) for index in range(depth))
    partitions = []
    for path, leaf in leaves if depth else []:
        own = reader.of_files(leaf)
        if own is not None:
            partitions.append(FoundPartition(tuple(map(_key_value, path)), leaf.url, own, tuple(leaf.files)))
    files = tuple(item for _, leaf in leaves for item in leaf.files)
    return FoundTable(_table_name(folder.name), folder.url, schema, keys, tuple(partitions), files)


def _key_name(names: list[str], index: int) -> str:
    keys = {name.partition("=")[0] if "=" in name else None for name in names}
    key = keys.pop() if len(keys) == 1 else None
    return _table_name(key) if key else f"partition_{index}"


def _key_value(name: str) -> str:
    return unquote(name.partition("=")[2]) if "=" in name else name


def _table_name(text: str) -> str:
    return re.sub(r"[^a-z0-9_]", "_", text.lower())


# ---- writing -------------------------------------------------------------------------------------------------------


class Changes:
    """What a crawl did to the catalogue, by table or partition and verb: names for the summary, lines for the log."""

    def __init__(self) -> None:
        self.names: dict[tuple[str, str], list[str]] = {}
        self.log: list[str] = []

    def add(self, what: str, verb: str, name: str) -> None:
        self.names.setdefault((what, verb), []).append(name)


class CatalogueWriter:
    """Brings a crawler's findings into its database, by its schema change and recrawl policies."""

    def __init__(
        self, catalogue: Catalogue, crawler: Mapping[str, Any], configuration: Mapping[str, Any], objects: Objects
    ) -> None:
        self.catalogue, self.crawler, self.objects = catalogue, crawler, objects
        policy = crawler["SchemaChangePolicy"]
        self.update, self.delete = policy["UpdateBehavior"], policy["DeleteBehavior"]
        self.new_only = crawler["RecrawlPolicy"]["RecrawlBehavior"] == "CRAWL_NEW_FOLDERS_ONLY"
        output = configuration.get("CrawlerOutput", {})
        self.merge_columns = output.get("Tables", {}).get("AddOrUpdateBehavior") == "MergeNewColumns"
        self.inherit = output.get("Partitions", {}).get("AddOrUpdateBehavior") == "InheritFromTable"
        self.threshold = output.get("Tables", {}).get("TableThreshold")
        self.database = crawler["DatabaseName"]
        self.changes = Changes()

    def write(self, found: list[FoundTable]) -> Changes:
        """Raises `CrawlFailed`."""
        if self.threshold is not None and len(found) > self.threshold:
            raise CrawlFailed(
                f"The number of tables detected by crawler: {len(found)} is greater than the table threshold value "
                f"provided: {self.threshold}. No tables were created."
            )
        known = {_location(table): table for table in self.catalogue.tables(self.database)}
        for table in found:
            held = known.get(table.location.rstrip("/"))
            if held is None:
                held = self._create(table)
            elif not self.new_only:
                held = self._change(held, table)
            self._partitions(held, table)
        if not self.new_only:
            self._gone(known, {table.location.rstrip("/") for table in found})
        return self.changes

    def _create(self, table: FoundTable) -> Document:
        name = (self.crawler.get("TablePrefix", "") + table.name).lower()
        if self.catalogue.find_table(self.database, name) is not None:
            digest = hashlib.md5(table.location.encode(), usedforsecurity=False).hexdigest()
            name = f"{name}_{digest}"
        given = {
            "Name": name,
            "Owner": "owner",
            "Retention": 0,
            "TableType": "EXTERNAL_TABLE",
            "PartitionKeys": [{"Name": key, "Type": "string"} for key in table.keys],
            "StorageDescriptor": self._storage(table.location, table.schema),
            "Parameters": self._parameters(table),
            "LastAccessTime": time.time(),
        }
        made = self.catalogue.create_table(self.database, given, f"crawler/{self.crawler['Name']}")
        self.changes.add("TABLE", "ADD", name)
        return made

    def _change(self, held: Document, table: FoundTable) -> Document:
        old = held["StorageDescriptor"]["Columns"]
        new = [{"Name": name, "Type": kind.hive} for name, kind in table.schema.columns.items()]
        if self.merge_columns:
            names = {column["Name"] for column in old}
            new = old + [column for column in new if column["Name"] not in names]
        differs = [(c["Name"], c["Type"]) for c in old] != [(c["Name"], c["Type"]) for c in new]
        if differs and self.update == "LOG":
            self.changes.log.append(f"Table {held['Name']} has another schema now; it is not updated (LOG).")
            return held
        parameters = {**held["Parameters"], **self._parameters(table)}
        storage = {**held["StorageDescriptor"], "Columns": new}
        given = {**_input(held), "StorageDescriptor": storage, "Parameters": parameters}
        if differs:
            self.changes.add("TABLE", "UPDATE", held["Name"])
        return self.catalogue.update_table(self.database, given)

    def _partitions(self, held: Document, table: FoundTable) -> None:
        if [key["Name"] for key in held["PartitionKeys"]] != list(table.keys):
            for partition in table.partitions:
                self.changes.log.append(
                    f"Folder partition keys do not match table partition keys, skipped folder: {partition.location}"
                )
            return
        known = {tuple(p["Values"]): p for p in self.catalogue.partitions(self.database, held["Name"])}
        for partition in table.partitions:
            name = f"{held['Name']}/{'/'.join(partition.values)}"
            made = self._partition(held, table, partition)
            old = known.get(partition.values)
            if old is None:
                self.catalogue.create_partition(held, made)
                self.changes.add("PARTITION", "ADD", name)
            elif not self.new_only and self.update == "UPDATE_IN_DATABASE":
                if old["StorageDescriptor"] != made["StorageDescriptor"]:
                    self.changes.add("PARTITION", "UPDATE", name)
                self.catalogue.replace_partition(held, list(partition.values), made)

    def _partition(self, held: Document, table: FoundTable, partition: FoundPartition) -> Document:
        storage = self._storage(partition.location, partition.schema)
        if self.inherit:
            storage["Columns"] = held["StorageDescriptor"]["Columns"]
        own = FoundTable(table.name, partition.location, partition.schema, (), (), partition.objects)
        return {"Values": list(partition.values), "StorageDescriptor": storage, "Parameters": self._parameters(own)}

    def _gone(self, known: Mapping[str, Document], present: set[str]) -> None:
        """Tables of this crawler whose folder is empty now, and partitions of tables that are still there."""
        for location, table in known.items():
            if table["Parameters"].get("UPDATED_BY_CRAWLER") != self.crawler["Name"]:
                continue
            if location not in present:
                self._lost_table(table)
            elif self.delete == "DELETE_FROM_DATABASE":
                for partition in self.catalogue.partitions(self.database, table["Name"]):
                    bucket, prefix = split_url(partition["StorageDescriptor"]["Location"])
                    if not self.objects.find(bucket, prefix, limit=1):
                        self.catalogue.delete_partition(self.database, table["Name"], partition["Values"])
                        self.changes.add("PARTITION", "DELETE", f"{table['Name']}/{'/'.join(partition['Values'])}")

    def _lost_table(self, table: Document) -> None:
        if self.delete == "DELETE_FROM_DATABASE":
            self.catalogue.delete_table(self.database, table["Name"])
            self.changes.add("TABLE", "DELETE", table["Name"])
        elif self.delete == "DEPRECATE_IN_DATABASE":
            deprecated = {**table["Parameters"], "DEPRECATED_BY_CRAWLER": str(int(time.time() * 1000))}
            self.catalogue.update_table(self.database, {**_input(table), "Parameters": deprecated})
            self.changes.add("TABLE", "UPDATE", table["Name"])
        else:
            self.changes.log.append(f"Table {table['Name']} is no longer found; it is kept (LOG).")

    def _storage(self, location: str, schema: FileSchema) -> Document:
        layout = STORAGE[schema.format]
        serde = {**layout["SerdeInfo"], "Parameters": dict(layout["SerdeInfo"]["Parameters"])}
        if "delimiter" in schema.parameters:
            serde["Parameters"]["field.delim"] = schema.parameters["delimiter"]
        return {
            "Columns": [{"Name": name, "Type": kind.hive} for name, kind in schema.columns.items()],
            "Location": location,
            "InputFormat": layout["InputFormat"],
            "OutputFormat": layout["OutputFormat"],
            "Compressed": schema.compression != "none",
            "NumberOfBuckets": -1,
            "SerdeInfo": serde,
            "BucketColumns": [],
            "SortColumns": [],
            "StoredAsSubDirectories": False,
        }

    def _parameters(self, table: FoundTable) -> dict[str, str]:
        size = sum(item.size for item in table.objects)
        made = {
            "CrawlerSchemaDeserializerVersion": "1.0",
            "CrawlerSchemaSerializerVersion": "1.0",
            "UPDATED_BY_CRAWLER": self.crawler["Name"],
            "classification": table.schema.format,
            "compressionType": table.schema.compression,
            "typeOfData": "file",
            "objectCount": str(len(table.objects)),
            "sizeKey": str(size),
            **table.schema.parameters,
        }
        if table.schema.rows is not None:
            made["recordCount"] = str(table.schema.rows)
            made["averageRecordSize"] = str(size // max(table.schema.rows, 1))
        return made


def _location(table: Mapping[str, Any]) -> str:
    return str(table.get("StorageDescriptor", {}).get("Location", "")).rstrip("/")


def _input(table: Document) -> Document:
    """A table as `update_table` takes it."""
    kept = (
        "Name",
        "Owner",
        "Retention",
        "TableType",
        "PartitionKeys",
        "StorageDescriptor",
        "Parameters",
        "Description",
    )
    return {name: table[name] for name in kept if name in table}
