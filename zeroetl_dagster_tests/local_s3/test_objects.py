"""Objects through boto3: content, ranges, conditions, awkward keys, listing, copies, multipart, restarts."""

from __future__ import annotations

import hashlib
import io
import threading
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zeroetl_dagster.local.aws.s3_objects import Objects, split_url
from zeroetl_dagster_tests.control_plane import ControlPlane

B = "bucket"


def keys(answer: dict[str, Any]) -> list[str]:
    return [item["Key"] for item in answer.get("Contents", [])]


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def test_an_object_comes_back_with_its_metadata_after_a_restart(aws: ControlPlane, s3: Any) -> None:
    put = s3.put_object(
        Bucket=B,
        Key="a/b.csv",
        Body=b"x,y\n",
        ContentType="text/csv",
        Metadata={"origin": "test"},
        Tagging="day=1&n=a b",
    )
    aws.world.objects.close()
    aws.restart()
    s3 = aws.client("s3")
    got = s3.get_object(Bucket=B, Key="a/b.csv")
    assert got["Body"].read() == b"x,y\n"
    assert (got["ContentType"], got["Metadata"], got["ETag"]) == ("text/csv", {"origin": "test"}, put["ETag"])
    assert got["ETag"].strip('"') == hashlib.md5(b"x,y\n").hexdigest()
    head = s3.head_object(Bucket=B, Key="a/b.csv")
    assert (head["ContentLength"], head["LastModified"]) == (4, got["LastModified"])
    assert s3.get_object_tagging(Bucket=B, Key="a/b.csv")["TagSet"] == [
        {"Key": "day", "Value": "1"},
        {"Key": "n", "Value": "a b"},
    ]


def test_an_object_is_one_plain_file(aws: ControlPlane, s3: Any) -> None:
    s3.put_object(Bucket=B, Key="export/part-0.gz.parquet", Body=b"PAR1")
    path = aws.world.objects.path_of(B, "export/part-0.gz.parquet")
    assert path is not None and path.read_bytes() == b"PAR1" and path.name.endswith("-part-0.gz.parquet")
    assert aws.world.objects.path_of(B, "export/none") is None
    s3.put_object(Bucket=B, Key="export/part-0.gz.parquet", Body=b"PAR2")
    assert not path.exists()


AWKWARD = [
    "../../etc/passwd",
    "..",
    "a/../b",
    "/leading",
    "double//slash/",
    "日本語/キー ☃.parquet",
    "spaces and+plus&amp=?#%25",
    "a",
    "a/b",
    "quote\"'<>&",
    "tab\tnewline\n",
    "é" * 512,
    "x" * 1024,
]


def test_awkward_keys_are_just_keys(aws: ControlPlane, s3: Any) -> None:
    for key in AWKWARD:
        s3.put_object(Bucket=B, Key=key, Body=key.encode())
    for key in AWKWARD:
        assert s3.get_object(Bucket=B, Key=key)["Body"].read() == key.encode()
    assert keys(s3.list_objects_v2(Bucket=B)) == sorted(AWKWARD, key=str.encode)
    inside = {path for path in aws.folder.s3.rglob("*") if path.is_file() and path.parent.parent.name == B}
    assert len(inside) == len(AWKWARD)
    s3.delete_objects(Bucket=B, Delete={"Objects": [{"Key": key} for key in AWKWARD if "\n" not in key]})
    assert keys(s3.list_objects_v2(Bucket=B)) == ["tab\tnewline\n"]


def test_a_key_has_at_most_1024_bytes(s3: Any) -> None:
    with pytest.raises(ClientError, match="Your key is too long: 1025 bytes") as error:
        s3.put_object(Bucket=B, Key="x" * 1025, Body=b"")
    assert code(error) == "KeyTooLongError"


@pytest.mark.parametrize(
    ("asked", "expected", "content_range"),
    [
        ("bytes=0-3", b"0123", "bytes 0-3/10"),
        ("bytes=8-", b"89", "bytes 8-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=5-100", b"56789", "bytes 5-9/10"),
    ],
)
def test_ranges(s3: Any, asked: str, expected: bytes, content_range: str) -> None:
    s3.put_object(Bucket=B, Key="k", Body=b"0123456789")
    got = s3.get_object(Bucket=B, Key="k", Range=asked)
    assert (got["Body"].read(), got["ContentRange"]) == (expected, content_range)
    assert got["ResponseMetadata"]["HTTPStatusCode"] == 206


def test_a_range_beyond_the_end_is_refused(s3: Any) -> None:
    s3.put_object(Bucket=B, Key="k", Body=b"0123456789")
    with pytest.raises(ClientError) as error:
        s3.get_object(Bucket=B, Key="k", Range="bytes=10-")
    assert code(error) == "InvalidRange"


def test_conditions(s3: Any) -> None:
    etag = s3.put_object(Bucket=B, Key="k", Body=b"1")["ETag"]
    assert s3.get_object(Bucket=B, Key="k", IfMatch=etag)["Body"].read() == b"1"
    for condition in ({"IfMatch": '"0"'}, {"IfUnmodifiedSince": "2020-01-01"}):
        with pytest.raises(ClientError) as error:
            s3.get_object(Bucket=B, Key="k", **condition)
        assert code(error) == "PreconditionFailed"
    for condition in ({"IfNoneMatch": etag}, {"IfModifiedSince": "2100-01-01"}):
        with pytest.raises(ClientError) as error:
            s3.head_object(Bucket=B, Key="k", **condition)
        assert code(error) == "304"
    for condition in ({"IfNoneMatch": "*"}, {"IfMatch": '"0"'}):
        with pytest.raises(ClientError) as error:
            s3.put_object(Bucket=B, Key="k", Body=b"2", **condition)
        assert code(error) == "PreconditionFailed"
    s3.put_object(Bucket=B, Key="new", Body=b"2", IfNoneMatch="*")
    s3.put_object(Bucket=B, Key="k", Body=b"3", IfMatch=etag)
    assert s3.get_object(Bucket=B, Key="k")["Body"].read() == b"3"


def test_missing_things(s3: Any) -> None:
    for call, expected in (
        (lambda: s3.get_object(Bucket=B, Key="k"), "NoSuchKey"),
        (lambda: s3.head_object(Bucket=B, Key="k"), "404"),
        (lambda: s3.get_object(Bucket="absent", Key="k"), "NoSuchBucket"),
        (lambda: s3.copy_object(Bucket=B, Key="k", CopySource="bucket/none"), "NoSuchKey"),
        (lambda: s3.list_parts(Bucket=B, Key="k", UploadId="none"), "NoSuchUpload"),
    ):
        with pytest.raises(ClientError) as error:
            call()
        assert code(error) == expected
    s3.delete_object(Bucket=B, Key="k")


def test_a_wrong_digest_is_refused_and_leaves_nothing(aws: ControlPlane, s3: Any) -> None:
    with pytest.raises(ClientError, match="content-md5") as error:
        s3.put_object(Bucket=B, Key="k", Body=b"1", ContentMD5="1B2M2Y8AsgTpgAmY7PhCfg==")
    assert code(error) == "BadDigest"
    with pytest.raises(ClientError, match="x-amz-checksum-crc32"):
        s3.put_object(Bucket=B, Key="k", Body=b"1", ChecksumCRC32="AAAAAA==")
    assert keys(s3.list_objects_v2(Bucket=B)) == []
    assert not [p for p in (aws.folder.s3 / B).rglob("*") if p.is_file()]


def test_chunked_uploads_are_unwrapped(aws: ControlPlane, s3: Any) -> None:
    body = b"5;chunk-signature=00\r\nhello\r\n6\r\n world\r\n0\r\nx-amz-checksum-crc32:DUoRhQ==\r\n\r\n"
    url = s3.generate_presigned_url("put_object", Params={"Bucket": B, "Key": "k"})
    request = urllib.request.Request(url, data=body, method="PUT")
    request.add_header("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")
    request.add_header("x-amz-trailer", "x-amz-checksum-crc32")
    request.add_header("Content-Encoding", "aws-chunked")
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200
    got = s3.get_object(Bucket=B, Key="k")
    assert got["Body"].read() == b"hello world" and "ContentEncoding" not in got


def test_a_presigned_url_needs_no_client(s3: Any) -> None:
    s3.put_object(Bucket=B, Key="a b", Body=b"1")
    url = s3.generate_presigned_url("get_object", Params={"Bucket": B, "Key": "a b", "ResponseContentType": "x/y"})
    with urllib.request.urlopen(url) as answer:
        assert (answer.read(), answer.headers["Content-Type"]) == (b"1", "x/y")


# ---- listing --------------------------------------------------------------------------------------------------------


def test_listing_pages_with_a_delimiter(s3: Any) -> None:
    for key in ("a/1", "a/2", "b", "c/1", "c/d/1", "e"):
        s3.put_object(Bucket=B, Key=key, Body=b"")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=B, Delimiter="/", PaginationConfig={"PageSize": 2})
    found = [
        [*keys(page), *(p["Prefix"] for p in page.get("CommonPrefixes", []))] + [page["KeyCount"], page["IsTruncated"]]
        for page in pages
    ]
    assert found == [["b", "a/", 2, True], ["e", "c/", 2, False]]
    assert keys(s3.list_objects_v2(Bucket=B, Prefix="c/", Delimiter="/")) == ["c/1"]
    assert keys(s3.list_objects_v2(Bucket=B, StartAfter="b")) == ["c/1", "c/d/1", "e"]
    old = s3.get_paginator("list_objects").paginate(Bucket=B, Delimiter="/", PaginationConfig={"PageSize": 1})
    assert [keys(p) + [c["Prefix"] for c in p.get("CommonPrefixes", [])] for p in old] == [["a/"], ["b"], ["c/"], ["e"]]
    with pytest.raises(ClientError, match="continuation token"):
        s3.list_objects_v2(Bucket=B, ContinuationToken="é")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sets(st.text(st.sampled_from("ab/é"), min_size=1, max_size=6), max_size=25),
    st.text(st.sampled_from("ab/"), max_size=2),
    st.sampled_from(["", "/", "a/"]),
    st.integers(1, 5),
)
def test_paging_gives_what_one_listing_gives(
    tmp_path_factory: pytest.TempPathFactory, names: set[str], prefix: str, delimiter: str, size: int
) -> None:
    objects = Objects(tmp_path_factory.mktemp("s3"))
    for name in names:
        objects.put(B, name, b"")
    expected: list[str] = []
    for name in sorted((n for n in names if n.startswith(prefix)), key=str.encode):
        head, cut, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
        shown = prefix + head + cut if cut else name
        if shown not in expected:
            expected.append(shown)
    found: list[str] = []
    after: str | None = ""
    while after is not None:
        items, after = objects.level(B, prefix, delimiter, after=after, limit=size)
        assert len(items) <= size
        found += [item if isinstance(item, str) else item.key for item in items]
    assert found == expected
    objects.close()


# ---- copies and multipart -------------------------------------------------------------------------------------------


def test_copies_are_independent(s3: Any) -> None:
    s3.put_object(Bucket=B, Key="a +é", Body=b"1", ContentType="text/plain", Metadata={"k": "v"})
    s3.copy_object(Bucket=B, Key="b", CopySource={"Bucket": B, "Key": "a +é"})
    s3.copy_object(Bucket=B, Key="c", CopySource={"Bucket": B, "Key": "a +é"}, MetadataDirective="REPLACE", Metadata={})
    s3.delete_object(Bucket=B, Key="a +é")
    got = s3.get_object(Bucket=B, Key="b")
    assert (got["Body"].read(), got["ContentType"], got["Metadata"]) == (b"1", "text/plain", {"k": "v"})
    assert s3.head_object(Bucket=B, Key="c")["Metadata"] == {}
    with pytest.raises(ClientError, match="copy an object to itself"):
        s3.copy_object(Bucket=B, Key="b", CopySource={"Bucket": B, "Key": "b"})


def test_a_large_file_goes_by_parts(aws: ControlPlane, s3: Any) -> None:
    data = bytes(range(256)) * 4096 * 12  # 12 MiB
    config = TransferConfig(multipart_threshold=1 << 20, multipart_chunksize=5 << 20)
    s3.upload_fileobj(io.BytesIO(data), B, "big", Config=config)
    head = s3.head_object(Bucket=B, Key="big")
    assert head["ContentLength"] == len(data) and head["ETag"].endswith('-3"')
    into = io.BytesIO()
    s3.download_fileobj(B, "big", into, Config=config)
    assert into.getvalue() == data
    assert len([p for p in (aws.folder.s3 / B).rglob("*") if p.is_file()]) == 1
    upload = s3.create_multipart_upload(Bucket=B, Key="copy", ContentType="x/y")["UploadId"]
    parts = []
    for number, span in enumerate(("bytes=0-6291455", "bytes=6291456-12582911"), 1):
        made = s3.upload_part_copy(
            Bucket=B, Key="copy", UploadId=upload, PartNumber=number, CopySource=f"{B}/big", CopySourceRange=span
        )
        parts.append({"PartNumber": number, "ETag": made["CopyPartResult"]["ETag"]})
    s3.complete_multipart_upload(Bucket=B, Key="copy", UploadId=upload, MultipartUpload={"Parts": parts})
    got = s3.get_object(Bucket=B, Key="copy")
    assert got["Body"].read() == data and got["ContentType"] == "x/y"


def test_multipart_survives_a_restart_and_checks_its_parts(aws: ControlPlane, s3: Any) -> None:
    upload = s3.create_multipart_upload(Bucket=B, Key="k")["UploadId"]
    first = s3.upload_part(Bucket=B, Key="k", UploadId=upload, PartNumber=1, Body=b"1" * (5 << 20))["ETag"]
    aws.world.objects.close()
    aws.restart()
    s3 = aws.client("s3")
    second = s3.upload_part(Bucket=B, Key="k", UploadId=upload, PartNumber=2, Body=b"2")["ETag"]
    assert [p["Size"] for p in s3.list_parts(Bucket=B, Key="k", UploadId=upload)["Parts"]] == [5 << 20, 1]
    assert [u["Key"] for u in s3.list_multipart_uploads(Bucket=B)["Uploads"]] == ["k"]

    def complete(*parts: tuple[int, str]) -> Any:
        named = {"Parts": [{"PartNumber": n, "ETag": e} for n, e in parts]}
        return s3.complete_multipart_upload(Bucket=B, Key="k", UploadId=upload, MultipartUpload=named)

    for wrong, expected in (
        ([(1, second)], "InvalidPart"),
        ([(3, first)], "InvalidPart"),
        ([(2, second), (1, first)], "InvalidPartOrder"),
    ):
        with pytest.raises(ClientError) as error:
            complete(*wrong)
        assert code(error) == expected
    complete((1, first), (2, second))
    assert s3.head_object(Bucket=B, Key="k")["ContentLength"] == (5 << 20) + 1
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=B)


def test_a_small_part_in_the_middle_is_refused(s3: Any) -> None:
    upload = s3.create_multipart_upload(Bucket=B, Key="k")["UploadId"]
    tags = [s3.upload_part(Bucket=B, Key="k", UploadId=upload, PartNumber=n, Body=b"x")["ETag"] for n in (1, 2)]
    named = {"Parts": [{"PartNumber": n, "ETag": tag} for n, tag in enumerate(tags, 1)]}
    with pytest.raises(ClientError, match="smaller than the minimum"):
        s3.complete_multipart_upload(Bucket=B, Key="k", UploadId=upload, MultipartUpload=named)
    s3.abort_multipart_upload(Bucket=B, Key="k", UploadId=upload)
    with pytest.raises(ClientError, match="does not exist"):
        s3.list_parts(Bucket=B, Key="k", UploadId=upload)


# ---- what other services rely on ------------------------------------------------------------------------------------


def test_blobs_stay_while_somebody_reads(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    path = objects.put(B, "k", b"1").path
    with objects.reading():
        objects.put(B, "k", b"2")
        objects.delete(B, ["k"])
        assert path.read_bytes() == b"1"
    assert not path.exists() and objects.get(B, "k") is None


def test_a_kill_leaves_no_unknown_files(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    objects.put(B, "k", b"1")
    left_behind = objects.writer(B, "k")
    left_behind.write(b"half")
    left_behind.flush()
    objects.close()
    again = Objects(tmp_path)
    assert not left_behind.path.exists() and again.read(B, "k") == b"1"
    with pytest.raises(KeyError, match="s3://bucket/none does not exist"):
        again.read(B, "none")


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    objects = Objects(tmp_path)

    def write(number: int) -> None:
        for turn in range(20):
            objects.put(B, f"own-{number}-{turn}", b"x" * number)
            objects.put(B, "shared", bytes([number]) * 100)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(objects.find(B)) == 8 * 20 + 1
    assert len(set(objects.read(B, "shared"))) == 1
    assert len([p for p in (tmp_path / B).rglob("*") if p.is_file()]) == 8 * 20 + 1


def test_locations_are_split() -> None:
    assert split_url("s3://b/a/b c") == ("b", "a/b c")
    assert split_url("s3://b") == ("b", "")
    with pytest.raises(ValueError, match="is not an S3 location"):
        split_url("/b/a")
