"""S3's objects as plain files, and the index that knows them.

Each object is one immutable file (a blob) under `<root>/<bucket>/`; its key, metadata and blob's name are a row of
`index.sqlite`. So any key is safe (`..`, 1,000 characters, "a" beside "a/b"), listing in S3's order is an index scan, a
replaced object never changes under a reader, and a file is there before the row that names it: a kill -9 leaves at
worst a blob that nobody knows, swept at the next start.

Readers that want files (DuckDB, pyarrow) take paths inside `reading()`, which holds back the removal of blobs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_SCHEMA = """
CREATE TABLE IF NOT EXISTS bucket (name TEXT PRIMARY KEY, account TEXT, region TEXT, created REAL, config TEXT);
CREATE TABLE IF NOT EXISTS object (
    bucket TEXT, key TEXT, blob TEXT, size INTEGER, etag TEXT, modified REAL, headers TEXT, tags TEXT,
    PRIMARY KEY (bucket, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS upload (id TEXT PRIMARY KEY, bucket TEXT, key TEXT, initiated REAL, headers TEXT);
CREATE TABLE IF NOT EXISTS part (
    upload TEXT, number INTEGER, blob TEXT, size INTEGER, etag TEXT, modified REAL, PRIMARY KEY (upload, number)
) WITHOUT ROWID;
"""
_LAST = "\U0010ffff"  # sorts after every key that continues a prefix
_UNSAFE = re.compile(r"[^A-Za-z0-9._=-]+")
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Bucket:
    """`created` is epoch seconds; `config` holds the sub-resources that were put (policy, lifecycle, ...)."""

    name: str
    account: str
    region: str
    created: float
    config: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Object:
    """One object. `path` is its file, `etag` has no quotes, `headers` are the metadata as AWS's member names."""

    bucket: str
    key: str
    path: Path
    size: int
    etag: str
    modified: float
    headers: dict[str, Any]
    tags: dict[str, str]


@dataclass(frozen=True)
class Part:
    """One uploaded part of a multipart upload."""

    number: int
    path: Path
    size: int
    etag: str
    modified: float


class Writer:
    """A new blob being written; nothing of it is seen before `Objects.commit`. A file to pyarrow and `shutil`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb")
        self._md5 = hashlib.md5(usedforsecurity=False)
        self.size = 0

    def write(self, data: Any) -> int:
        self._md5.update(data)
        self.size += len(data)
        return self._file.write(data)

    def digest(self, data: bytes) -> None:
        """Account for content that gets into the file another way."""
        self._md5.update(data)
        self.size += len(data)

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        self._file.flush()

    @property
    def closed(self) -> bool:
        return self._file.closed

    def close(self) -> None:
        self._file.close()

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    @property
    def md5(self) -> str:
        return self._md5.hexdigest()

    def discard(self) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)


class Objects:
    """All buckets of one embedded AWS. Thread-safe; a second process must not open the same folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._readers = 0
        self._doomed: list[Path] = []
        self._database = sqlite3.connect(
            root / "index.sqlite", isolation_level=None, check_same_thread=False, timeout=30
        )
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.executescript(_SCHEMA)
        self._sweep()

    def close(self) -> None:
        with self._lock:
            self._database.close()

    # ---- buckets -------------------------------------------------------------------------------------------------

    def create_bucket(self, name: str, account: str, region: str) -> bool:
        """False when the name is taken (bucket names are global)."""
        row = (name, account, region, time.time(), "{}")
        return self._write("INSERT OR IGNORE INTO bucket VALUES (?, ?, ?, ?, ?)", row).rowcount == 1

    def bucket(self, name: str) -> Bucket | None:
        for found in self._rows("SELECT * FROM bucket WHERE name = ?", (name,)):
            return _bucket(found)
        return None

    def buckets(self, account: str) -> list[Bucket]:
        rows = self._rows("SELECT * FROM bucket WHERE account = ? ORDER BY name", (account,))
        return [_bucket(row) for row in rows]

    def delete_bucket(self, name: str) -> bool:
        """False when it still holds objects."""
        with self._lock:
            if self._rows("SELECT 1 FROM object WHERE bucket = ? LIMIT 1", (name,)):
                return False
            for upload in self.uploads(name):
                self.abort_upload(upload["id"])
            self._write("DELETE FROM bucket WHERE name = ?", (name,))
        return True

    def configure(self, bucket: str, name: str, value: Any) -> None:
        """Keep a sub-resource of the bucket (JSON); None removes it."""
        with self._lock:
            found = self.bucket(bucket)
            if found is None:
                raise KeyError(f"no bucket {bucket}")
            config = {key: held for key, held in found.config.items() if key != name}
            if value is not None:
                config[name] = value
            self._write("UPDATE bucket SET config = ? WHERE name = ?", (json.dumps(config), bucket))

    # ---- objects -------------------------------------------------------------------------------------------------

    def writer(self, bucket: str, key: str) -> Writer:
        """A file for the new content of `key`; give it to `commit`, or `discard` it."""
        blob = uuid.uuid4().hex
        name = _UNSAFE.sub("_", key.rsplit("/", 1)[-1])[-80:]
        return Writer(self.root / bucket / blob[:2] / f"{blob}-{name}")

    def commit(
        self,
        bucket: str,
        key: str,
        written: Writer,
        headers: Mapping[str, Any] | None = None,
        *,
        etag: str | None = None,
        tags: Mapping[str, str] | None = None,
        only_if: str | None = None,
    ) -> Object | None:
        """Make `written` the object, in one step.

        `only_if` is a condition on what is there now: an ETag, or "absent"; None comes back where it does not hold.
        """
        written.close()
        made = Object(
            bucket,
            key,
            written.path,
            written.size,
            etag or written.md5,
            time.time(),
            dict(headers or {}),
            dict(tags or {}),
        )
        with self._lock:
            old = self.get(bucket, key)
            if only_if is not None and only_if != ("absent" if old is None else old.etag):
                written.discard()
                return None
            self._insert(made)
            if old is not None:
                self._remove([old.path])
        return made

    def adopt(self, bucket: str, key: str, path: Path, headers: Mapping[str, Any] | None = None) -> Object:
        """Take a finished file (of the same file system) as the object; it is gone from where it was."""
        writer = self.writer(bucket, key)
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                writer.digest(chunk)
        os.replace(path, writer.path)
        made = self.commit(bucket, key, writer, headers)
        assert made is not None
        return made

    def put(self, bucket: str, key: str, data: bytes, headers: Mapping[str, Any] | None = None) -> Object:
        """A small object at once."""
        writer = self.writer(bucket, key)
        writer.write(data)
        made = self.commit(bucket, key, writer, headers)
        assert made is not None
        return made

    def get(self, bucket: str, key: str) -> Object | None:
        for row in self._rows("SELECT * FROM object WHERE bucket = ? AND key = ?", (bucket, key)):
            return self._object(row)
        return None

    def path_of(self, bucket: str, key: str) -> Path | None:
        """The file that holds the object; None where there is no such object."""
        found = self.get(bucket, key)
        return found.path if found else None

    def read(self, bucket: str, key: str) -> bytes:
        """The whole content. Raises `KeyError` where there is no such object."""
        path = self.path_of(bucket, key)
        if path is None:
            raise KeyError(f"s3://{bucket}/{key} does not exist")
        return path.read_bytes()

    def tag(self, bucket: str, key: str, tags: Mapping[str, str]) -> None:
        self._write("UPDATE object SET tags = ? WHERE bucket = ? AND key = ?", (json.dumps(dict(tags)), bucket, key))

    def copy(
        self, source: Object, bucket: str, key: str, headers: Mapping[str, Any], tags: Mapping[str, str]
    ) -> Object:
        """A second name for the same content (a hard link: blobs never change)."""
        writer = self.writer(bucket, key)
        writer.discard()
        os.link(source.path, writer.path)
        made = Object(bucket, key, writer.path, source.size, source.etag, time.time(), dict(headers), dict(tags))
        with self._lock:
            old = self.get(bucket, key)
            self._insert(made)
            if old is not None:
                self._remove([old.path])
        return made

    def delete(self, bucket: str, keys: Iterable[str]) -> int:
        """Remove objects; how many there were."""
        gone = 0
        with self._lock:
            for key in keys:
                found = self.get(bucket, key)
                if found is not None:
                    self._write("DELETE FROM object WHERE bucket = ? AND key = ?", (bucket, key))
                    self._remove([found.path])
                    gone += 1
        return gone

    def delete_prefix(self, bucket: str, prefix: str) -> int:
        return self.delete(bucket, [found.key for found in self.find(bucket, prefix)])

    def find(self, bucket: str, prefix: str = "", *, after: str = "", limit: int | None = None) -> list[Object]:
        """Objects whose key begins with `prefix` and sorts after `after`, in S3's order (by UTF-8 bytes)."""
        rows = self._rows(
            "SELECT * FROM object WHERE bucket = ? AND key >= ? AND key < ? AND key > ? ORDER BY key LIMIT ?",
            (bucket, prefix, prefix + _LAST, after, -1 if limit is None else limit),
        )
        return [self._object(row) for row in rows]

    def level(
        self, bucket: str, prefix: str, delimiter: str, *, after: str = "", limit: int = 1000
    ) -> tuple[list[Object | str], str | None]:
        """Up to `limit` objects and common prefixes (strings) in order; where to go on (`after`), None at the end."""
        found: list[Object | str] = []
        position, common = after, None
        while True:
            batch = self.find(bucket, prefix, after=position, limit=limit + 1)
            for item in batch:
                if common is not None and item.key.startswith(common):
                    continue
                if len(found) == limit:
                    return found, position
                head, cut, _ = item.key[len(prefix) :].partition(delimiter) if delimiter else (item.key, "", "")
                common = prefix + head + cut if cut else None
                found.append(item if common is None else common)
                position = item.key if common is None else common + _LAST
            if len(batch) <= limit:
                return found, None

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """While open, no blob is removed from the disk: paths of objects stay readable."""
        with self._lock:
            self._readers += 1
        try:
            yield
        finally:
            with self._lock:
                self._readers -= 1
                self._remove([])

    # ---- multipart uploads ---------------------------------------------------------------------------------------

    def create_upload(self, bucket: str, key: str, headers: Mapping[str, Any]) -> str:
        upload = uuid.uuid4().hex + uuid.uuid4().hex
        row = (upload, bucket, key, time.time(), json.dumps(dict(headers)))
        self._write("INSERT INTO upload VALUES (?, ?, ?, ?, ?)", row)
        return upload

    def upload(self, upload: str) -> dict[str, Any] | None:
        """id, bucket, key, initiated, headers; None where there is no such upload."""
        for row in self._rows("SELECT * FROM upload WHERE id = ?", (upload,)):
            return _upload(row)
        return None

    def uploads(self, bucket: str) -> list[dict[str, Any]]:
        rows = self._rows("SELECT * FROM upload WHERE bucket = ? ORDER BY key, initiated", (bucket,))
        return [_upload(row) for row in rows]

    def put_part(self, upload: str, number: int, written: Writer) -> Part:
        written.close()
        part = Part(number, written.path, written.size, written.md5, time.time())
        with self._lock:
            old = [held.path for held in self.parts(upload) if held.number == number]
            blob = str(part.path.relative_to(self.root))
            row = (upload, number, blob, part.size, part.etag, part.modified)
            self._write("INSERT OR REPLACE INTO part VALUES (?, ?, ?, ?, ?, ?)", row)
            self._remove(old)
        return part

    def parts(self, upload: str) -> list[Part]:
        rows = self._rows("SELECT * FROM part WHERE upload = ? ORDER BY number", (upload,))
        return [Part(row[1], self.root / row[2], *row[3:]) for row in rows]

    def complete_upload(self, upload: str, parts: list[Part]) -> Object:
        """Join the parts, file by file; the ETag is S3's digest of digests."""
        about = self.upload(upload)
        assert about is not None
        writer = self.writer(about["bucket"], about["key"])
        for part in parts:
            with part.path.open("rb") as source:
                shutil.copyfileobj(source, writer, CHUNK_BYTES)
        digest = hashlib.md5(b"".join(bytes.fromhex(part.etag) for part in parts), usedforsecurity=False).hexdigest()
        etag = f"{digest}-{len(parts)}"
        made = self.commit(about["bucket"], about["key"], writer, about["headers"], etag=etag)
        assert made is not None
        self.abort_upload(upload)
        return made

    def abort_upload(self, upload: str) -> None:
        with self._lock:
            doomed = [part.path for part in self.parts(upload)]
            self._write("DELETE FROM part WHERE upload = ?", (upload,))
            self._write("DELETE FROM upload WHERE id = ?", (upload,))
            self._remove(doomed)

    # ---- the index and the files -----------------------------------------------------------------------------------

    def _insert(self, made: Object) -> None:
        blob = str(made.path.relative_to(self.root))
        row = (made.bucket, made.key, blob, made.size, made.etag, made.modified)
        more = (json.dumps(made.headers), json.dumps(made.tags))
        self._write("INSERT OR REPLACE INTO object VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row + more)

    def _object(self, row: tuple[Any, ...]) -> Object:
        bucket, key, blob, size, etag, modified, headers, tags = row
        return Object(bucket, key, self.root / blob, size, etag, modified, json.loads(headers), json.loads(tags))

    def _rows(self, sql: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._database.execute(sql, values).fetchall()

    def _write(self, sql: str, values: tuple[Any, ...]) -> sqlite3.Cursor:
        with self._lock:
            return self._database.execute(sql, values)

    def _remove(self, paths: list[Path]) -> None:
        self._doomed += paths
        if self._readers == 0:
            for path in self._doomed:
                path.unlink(missing_ok=True)
            self._doomed.clear()

    def _sweep(self) -> None:
        known = {row[0] for table in ("object", "part") for row in self._rows(f"SELECT blob FROM {table}", ())}
        for path in self.root.glob("*/??/*"):
            if str(path.relative_to(self.root)) not in known:
                path.unlink()


def _bucket(row: tuple[Any, ...]) -> Bucket:
    name, account, region, created, config = row
    return Bucket(name, account, region, created, json.loads(config))


def _upload(row: tuple[Any, ...]) -> dict[str, Any]:
    return {"id": row[0], "bucket": row[1], "key": row[2], "initiated": row[3], "headers": json.loads(row[4])}


def split_url(url: str) -> tuple[str, str]:
    """`s3://bucket/key` as (bucket, key). Raises `ValueError` for anything else."""
    scheme, _, rest = url.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme not in ("s3", "s3a", "s3n") or not bucket:
        raise ValueError(f"{url!r} is not an S3 location: s3://bucket/prefix/ is expected")
    return bucket, key
