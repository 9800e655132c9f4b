"""Bodies as streams: of requests by length, chunked by HTTP, or chunked by AWS's signature (`aws-chunked`); of answers
as a range of a file."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zeroetl_dagster.local.aws.errors import AwsError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from werkzeug.datastructures import Headers

    from zeroetl_dagster.local.aws.s3_objects import Writer

_CHUNK = 1 << 18
MAX_DRAIN_BYTES = 8 << 20


@dataclass(frozen=True)
class Range:
    """An answer that is a part of a file: `start` and `length` in bytes."""

    path: Path
    start: int
    length: int


class Body:
    """The body of one request, read once."""

    def __init__(self, environ: WSGIEnvironment) -> None:
        self._input = environ["wsgi.input"]
        length = environ.get("CONTENT_LENGTH")
        self._left = int(length) if length else (None if environ.get("wsgi.input_terminated") else 0)
        sha256 = environ.get("HTTP_X_AMZ_CONTENT_SHA256", "")
        encoding = environ.get("HTTP_CONTENT_ENCODING", "")
        self._aws_chunked = sha256.startswith("STREAMING-") or "aws-chunked" in encoding
        self.trailers: dict[str, str] = {}

    def chunks(self) -> Iterator[bytes]:
        yield from self._decoded() if self._aws_chunked else self._raw()

    def read_all(self) -> bytes:
        return b"".join(self.chunks())

    def into(self, writer: Writer, headers: Headers) -> None:
        """Write everything to `writer`, checking the digests that the client sent.

        Raises `AwsError` BadDigest or IncompleteBody, having discarded the writer.
        """
        crc = 0
        wanted_crc = headers.get("x-amz-checksum-crc32")
        watch = wanted_crc is not None or headers.get("x-amz-trailer", "").lower() == "x-amz-checksum-crc32"
        sha256 = hashlib.sha256() if "x-amz-checksum-sha256" in headers else None
        try:
            for chunk in self.chunks():
                writer.write(chunk)
                if watch:
                    crc = zlib.crc32(chunk, crc)
                if sha256:
                    sha256.update(chunk)
            found = {
                "content-md5": bytes.fromhex(writer.md5),
                "x-amz-checksum-crc32": crc.to_bytes(4, "big") if watch else None,
                "x-amz-checksum-sha256": sha256.digest() if sha256 else None,
            }
            for name, digest in found.items():
                wanted = headers.get(name) or self.trailers.get(name)
                if wanted and digest is not None and base64.b64encode(digest).decode() != wanted:
                    raise AwsError("BadDigest", f"The {name} you specified did not match what we received.", 400)
            if self._left:
                raise AwsError("IncompleteBody", "The request ended before its Content-Length was read.", 400)
        except BaseException:
            writer.discard()
            raise

    def drain(self) -> None:
        """Read what a refused request still sends (a little of it), so that the client reads the answer."""
        left = MAX_DRAIN_BYTES
        while left > 0 and (chunk := self._read(min(left, _CHUNK))):
            left -= len(chunk)

    def _raw(self) -> Iterator[bytes]:
        while chunk := self._read(_CHUNK):
            yield chunk

    def _read(self, size: int) -> bytes:
        if self._left is not None:
            size = min(size, self._left)
        data: bytes = self._input.read(size) if size else b""
        if self._left is not None:
            self._left -= len(data)
        return data

    def _decoded(self) -> Iterator[bytes]:
        """`<hex size>[;chunk-signature=...]\\r\\n<data>\\r\\n ... 0\\r\\n<trailers>` (SigV4, chunked uploads)."""
        while size := int(self._line().partition(b";")[0] or b"0", 16):
            while size:
                chunk = self._read(min(size, _CHUNK))
                if not chunk:
                    raise AwsError("IncompleteBody", "The request ended within a chunk.", 400)
                size -= len(chunk)
                yield chunk
            self._line()
        while line := self._line():
            name, _, value = line.decode("latin-1").partition(":")
            self.trailers[name.strip().lower()] = value.strip()

    def _line(self) -> bytes:
        line = self._input.readline(_CHUNK) if self._left is None else self._input.readline(min(self._left, _CHUNK))
        if self._left is not None:
            self._left -= len(line)
        return bytes(line).rstrip(b"\r\n")
