"""Operations on objects: put, get with ranges and conditions, copy, list, delete, tags, and multipart uploads."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote

from zeroetl_dagster.local.aws.errors import AwsError
from zeroetl_dagster.local.aws.s3_bodies import Range
from zeroetl_dagster.local.aws.s3_objects import Object, Part
from zeroetl_dagster.local.aws.times import moment

if TYPE_CHECKING:
    from zeroetl_dagster.local.aws.s3 import S3Call

Answer = dict[str, Any]
MAX_KEY_BYTES = 1024
MIN_PART_BYTES = 5 << 20
# Request members kept with the object and given back with it.
_KEPT = (
    "CacheControl",
    "ContentDisposition",
    "ContentEncoding",
    "ContentLanguage",
    "ContentType",
    "Metadata",
    "SSEKMSKeyId",
    "ServerSideEncryption",
    "StorageClass",
    "WebsiteRedirectLocation",
)
_SHOWN_BY_PUT = ("SSEKMSKeyId", "ServerSideEncryption")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class ObjectOperations:
    """What `S3` serves of objects."""

    # ---- write -------------------------------------------------------------------------------------------------------

    def put_object(self, call: S3Call) -> Answer:
        bucket, key = call.owned(call.params["Bucket"]), _key(call)
        writer = call.world.objects.writer(bucket.name, key)
        call.body.into(writer, call.headers)
        condition = None
        if "IfNoneMatch" in call.params:
            condition = "absent"
        elif "IfMatch" in call.params:
            condition = call.params["IfMatch"].strip('"')
        tags = dict(parse_qsl(call.params.get("Tagging", "")))
        made = call.world.objects.commit(bucket.name, key, writer, _kept(call), tags=tags, only_if=condition)
        if made is None:
            raise AwsError("PreconditionFailed", "At least one of the pre-conditions you specified did not hold", 412)
        return {"ETag": f'"{made.etag}"', **{k: v for k, v in made.headers.items() if k in _SHOWN_BY_PUT}}

    def copy_object(self, call: S3Call) -> Answer:
        source = _copy_source(call)
        bucket, key = call.owned(call.params["Bucket"]), _key(call)
        replaced = call.params.get("MetadataDirective", "COPY") == "REPLACE"
        if (source.bucket, source.key) == (bucket.name, key) and not replaced:
            raise AwsError(
                "InvalidRequest",
                "This copy request is illegal because it is trying to copy an object to itself without changing the "
                "object's metadata, storage class, website redirect location or encryption attributes.",
            )
        headers = _kept(call) if replaced else source.headers
        retag = call.params.get("TaggingDirective", "COPY") == "REPLACE"
        tags = dict(parse_qsl(call.params.get("Tagging", ""))) if retag else source.tags
        made = call.world.objects.copy(source, bucket.name, key, headers, tags)
        return {"CopyObjectResult": {"ETag": f'"{made.etag}"', "LastModified": moment(made.modified)}}

    def delete_object(self, call: S3Call) -> Answer:
        bucket = call.owned(call.params["Bucket"])
        call.world.objects.delete(bucket.name, [_key(call)])
        return {}

    def delete_objects(self, call: S3Call) -> Answer:
        bucket = call.owned(call.params["Bucket"])
        wanted = call.params["Delete"]["Objects"]
        if len(wanted) > 1000:
            raise AwsError("MalformedXML", "A DeleteObjects request names at most 1000 keys.")
        call.world.objects.delete(bucket.name, [item["Key"] for item in wanted])
        return {} if call.params["Delete"].get("Quiet") else {"Deleted": [{"Key": item["Key"]} for item in wanted]}

    # ---- read --------------------------------------------------------------------------------------------------------

    def get_object(self, call: S3Call) -> Answer:
        return _shown(call, _found(call))

    def head_object(self, call: S3Call) -> Answer:
        return _shown(call, _found(call))

    def get_object_attributes(self, call: S3Call) -> Answer:
        found = _found(call)
        known = {"ETag": found.etag, "ObjectSize": found.size, "StorageClass": "STANDARD"}
        wanted = call.params["ObjectAttributes"]
        return {"LastModified": moment(found.modified), **{k: v for k, v in known.items() if k in wanted}}

    def list_objects_v2(self, call: S3Call) -> Answer:
        token = call.params.get("ContinuationToken")
        after = _decoded(token) if token else call.params.get("StartAfter", "")
        answer, position = _listing(call, after)
        answer["KeyCount"] = len(answer["Contents"]) + len(answer["CommonPrefixes"])
        for name in ("ContinuationToken", "StartAfter"):
            if name in call.params:
                answer[name] = call.params[name]
        if position is not None:
            answer["NextContinuationToken"] = base64.urlsafe_b64encode(position.encode()).decode()
        return answer

    def list_objects(self, call: S3Call) -> Answer:
        marker = call.params.get("Marker", "")
        delimiter = call.params.get("Delimiter")
        # a marker that is a common prefix means: after everything under it
        under = delimiter and marker.endswith(delimiter) and marker != call.params.get("Prefix", "")
        answer, position = _listing(call, marker + "\U0010ffff" if under else marker)
        answer["Marker"] = marker
        if position is not None and delimiter:
            answer["NextMarker"] = position.rstrip("\U0010ffff")
        return answer

    # ---- tags --------------------------------------------------------------------------------------------------------

    def put_object_tagging(self, call: S3Call) -> Answer:
        found = _found(call)
        tags = {tag["Key"]: tag["Value"] for tag in call.params["Tagging"]["TagSet"]}
        call.world.objects.tag(found.bucket, found.key, tags)
        return {}

    def get_object_tagging(self, call: S3Call) -> Answer:
        return {"TagSet": [{"Key": k, "Value": v} for k, v in _found(call).tags.items()]}

    def delete_object_tagging(self, call: S3Call) -> Answer:
        found = _found(call)
        call.world.objects.tag(found.bucket, found.key, {})
        return {}

    # ---- multipart uploads -------------------------------------------------------------------------------------------

    def create_multipart_upload(self, call: S3Call) -> Answer:
        bucket, key = call.owned(call.params["Bucket"]), _key(call)
        upload = call.world.objects.create_upload(bucket.name, key, _kept(call))
        return {"Bucket": bucket.name, "Key": key, "UploadId": upload}

    def upload_part(self, call: S3Call) -> Answer:
        upload = _upload(call)
        writer = call.world.objects.writer(upload["bucket"], upload["key"])
        call.body.into(writer, call.headers)
        return {"ETag": f'"{call.world.objects.put_part(upload["id"], _part_number(call), writer).etag}"'}

    def upload_part_copy(self, call: S3Call) -> Answer:
        source, upload = _copy_source(call), _upload(call)
        start, length = _range(call.params.get("CopySourceRange"), source.size) or (0, source.size)
        writer = call.world.objects.writer(upload["bucket"], upload["key"])
        with source.path.open("rb") as file:
            file.seek(start)
            while length and (chunk := file.read(min(length, 1 << 20))):
                length -= len(chunk)
                writer.write(chunk)
        part = call.world.objects.put_part(upload["id"], _part_number(call), writer)
        return {"CopyPartResult": {"ETag": f'"{part.etag}"', "LastModified": moment(part.modified)}}

    def list_parts(self, call: S3Call) -> Answer:
        upload = _upload(call)
        parts = call.world.objects.parts(upload["id"])
        shown = [
            {"PartNumber": p.number, "ETag": f'"{p.etag}"', "Size": p.size, "LastModified": moment(p.modified)}
            for p in parts
            if p.number > int(call.params.get("PartNumberMarker", 0))
        ]
        size = call.params.get("MaxParts", 1000)
        answer: Answer = {"Bucket": upload["bucket"], "Key": upload["key"], "UploadId": upload["id"]}
        answer |= {"Parts": shown[:size], "IsTruncated": len(shown) > size, "MaxParts": size}
        return answer | ({"NextPartNumberMarker": shown[size - 1]["PartNumber"]} if len(shown) > size else {})

    def complete_multipart_upload(self, call: S3Call) -> Answer:
        upload = _upload(call)
        named = call.params.get("MultipartUpload", {}).get("Parts", [])
        parts = _chosen(call.world.objects.parts(upload["id"]), named)
        made = call.world.objects.complete_upload(upload["id"], parts)
        return {
            "Bucket": made.bucket,
            "Key": made.key,
            "ETag": f'"{made.etag}"',
            "Location": f"/{made.bucket}/{made.key}",
        }

    def abort_multipart_upload(self, call: S3Call) -> Answer:
        call.world.objects.abort_upload(_upload(call)["id"])
        return {}

    def list_multipart_uploads(self, call: S3Call) -> Answer:
        bucket = call.owned(call.params["Bucket"])
        found = call.world.objects.uploads(bucket.name)
        shown = [
            {"UploadId": u["id"], "Key": u["key"], "Initiated": moment(u["initiated"])}
            for u in found
            if u["key"].startswith(call.params.get("Prefix", ""))
        ]
        return {"Bucket": bucket.name, "Uploads": shown, "IsTruncated": False}


def _key(call: S3Call) -> str:
    key: str = call.params["Key"]
    try:
        length = len(key.encode())
    except UnicodeEncodeError:
        raise AwsError("InvalidURI", "Couldn't parse the specified URI: the key is not UTF-8.") from None
    if length > MAX_KEY_BYTES:
        raise AwsError("KeyTooLongError", f"Your key is too long: {length} bytes, at most {MAX_KEY_BYTES}.")
    return key


def _kept(call: S3Call) -> Answer:
    kept = {name: call.params[name] for name in _KEPT if name in call.params}
    kept["Metadata"] = {name.lower(): value for name, value in kept.get("Metadata", {}).items()}
    if encoding := kept.get("ContentEncoding"):  # aws-chunked is of the transfer, not of the object
        left = [item for item in map(str.strip, encoding.split(",")) if item and item != "aws-chunked"]
        kept["ContentEncoding"] = ",".join(left)
        if not left:
            del kept["ContentEncoding"]
    kept.setdefault("ServerSideEncryption", "AES256")
    return kept


def _found(call: S3Call) -> Object:
    bucket, key = call.owned(call.params["Bucket"]), _key(call)
    found = call.world.objects.get(bucket.name, key)
    if found is None:
        raise AwsError("NoSuchKey", f"The specified key does not exist: {key}", 404)
    return found


def _shown(call: S3Call, found: Object) -> Answer:
    """The answer to GET and HEAD, with the conditions and the range that were asked for."""
    _check_conditions(call.params, found)
    part = _range(call.params.get("Range"), found.size)
    answer: Answer = {
        **found.headers,
        "ETag": f'"{found.etag}"',
        "LastModified": moment(float(int(found.modified))),
        "AcceptRanges": "bytes",
        "Body": Range(found.path, *(part or (0, found.size))),
    }
    if found.tags:
        answer["TagCount"] = len(found.tags)
    for name, value in call.params.items():
        if name.startswith("Response"):
            answer[name.removeprefix("Response")] = value
    if part is not None:
        start, length = part
        answer["ContentRange"] = f"bytes {start}-{start + length - 1}/{found.size}"
        answer["_status"] = 206
    return answer


def _check_conditions(params: Mapping[str, Any], found: Object, prefix: str = "") -> None:
    """RFC 9110, section 13: If-Match over If-Unmodified-Since, If-None-Match over If-Modified-Since."""

    def listed(name: str) -> list[str]:
        return [tag.strip().strip('"') for tag in params[prefix + name].split(",")]

    modified = moment(float(int(found.modified))).replace(tzinfo=None)
    if prefix + "IfMatch" in params:
        if found.etag not in listed("IfMatch") and "*" not in listed("IfMatch"):
            raise AwsError("PreconditionFailed", "At least one of the pre-conditions you specified did not hold", 412)
    elif prefix + "IfUnmodifiedSince" in params and modified > params[prefix + "IfUnmodifiedSince"]:
        raise AwsError("PreconditionFailed", "At least one of the pre-conditions you specified did not hold", 412)
    if prefix + "IfNoneMatch" in params:
        if found.etag in listed("IfNoneMatch") or "*" in listed("IfNoneMatch"):
            raise AwsError("NotModified", "Not Modified", 412 if prefix else 304)
    elif prefix + "IfModifiedSince" in params and modified <= params[prefix + "IfModifiedSince"]:
        raise AwsError("NotModified", "Not Modified", 412 if prefix else 304)


def _range(header: str | None, size: int) -> tuple[int, int] | None:
    """(start, length) of one byte range; None for no range (or one that S3 ignores)."""
    asked = _RANGE.fullmatch(header or "")
    if asked is None or asked.group() == "bytes=-":
        return None
    first, last = asked.groups()
    if not first:
        start, end = max(size - int(last), 0), size
    else:
        start, end = int(first), min(int(last) + 1 if last else size, size)
    if start >= size or end <= start:
        raise AwsError("InvalidRange", f"The requested range is not satisfiable: {header} of {size} bytes", 416)
    return start, end - start


def _copy_source(call: S3Call) -> Object:
    bucket_name, _, key = unquote(str(call.params["CopySource"]).partition("?")[0]).lstrip("/").partition("/")
    bucket = call.world.objects.bucket(bucket_name)
    if bucket is None:
        raise AwsError("NoSuchBucket", f"The specified bucket does not exist: {bucket_name}", 404)
    call.authorize(bucket, "GetObject", key)
    found = call.world.objects.get(bucket_name, key)
    if found is None:
        raise AwsError("NoSuchKey", f"The specified key does not exist: {key}", 404)
    _check_conditions(call.params, found, "CopySource")
    return found


def _listing(call: S3Call, after: str) -> tuple[Answer, str | None]:
    bucket, params = call.owned(call.params["Bucket"]), call.params
    size = min(int(params.get("MaxKeys", 1000)), 1000)
    prefix, delimiter = params.get("Prefix", ""), params.get("Delimiter", "")
    if size:
        found, position = call.world.objects.level(bucket.name, prefix, delimiter, after=after, limit=size)
    else:
        found, position = [], None
    # botocore asks for url encoding, because XML cannot carry every character of a key
    shown = (lambda text: quote(text, safe="/")) if params.get("EncodingType") == "url" else str
    contents = [
        {
            "Key": shown(item.key),
            "LastModified": moment(item.modified),
            "ETag": f'"{item.etag}"',
            "Size": item.size,
            "StorageClass": item.headers.get("StorageClass", "STANDARD"),
        }
        for item in found
        if isinstance(item, Object)
    ]
    answer: Answer = {
        "Name": bucket.name,
        "Prefix": shown(prefix),
        "MaxKeys": size,
        "IsTruncated": position is not None,
        "Contents": contents,
        "CommonPrefixes": [{"Prefix": shown(item)} for item in found if isinstance(item, str)],
    }
    if delimiter:
        answer["Delimiter"] = shown(delimiter)
    if "EncodingType" in params:
        answer["EncodingType"] = params["EncodingType"]
    return answer, position


def _decoded(token: str) -> str:
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except ValueError:
        raise AwsError("InvalidArgument", "The continuation token provided is incorrect") from None


def _upload(call: S3Call) -> Answer:
    bucket, key = call.owned(call.params["Bucket"]), _key(call)
    found = call.world.objects.upload(call.params["UploadId"])
    if found is None or (found["bucket"], found["key"]) != (bucket.name, key):
        raise AwsError(
            "NoSuchUpload",
            "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or "
            "completed.",
            404,
        )
    return found


def _part_number(call: S3Call) -> int:
    number = int(call.params["PartNumber"])
    if not 1 <= number <= 10_000:
        raise AwsError("InvalidArgument", f"Part number must be an integer between 1 and 10000, not {number}")
    return number


def _chosen(held: list[Part], named: list[Answer]) -> list[Part]:
    """The parts of a CompleteMultipartUpload, in ascending order, all but the last of 5 MiB or more."""
    known = {part.number: part for part in held}
    if not named:
        raise AwsError("MalformedXML", "The XML you provided names no part.")
    chosen = []
    for item in named:
        part = known.get(item["PartNumber"])
        if part is None or item.get("ETag", "").strip('"') != part.etag:
            raise AwsError(
                "InvalidPart",
                f"One or more of the specified parts could not be found: part {item['PartNumber']}. The part may not "
                "have been uploaded, or the specified entity tag may not match the part's entity tag.",
            )
        chosen.append(part)
    if [part.number for part in chosen] != sorted({part.number for part in chosen}):
        raise AwsError("InvalidPartOrder", "The list of parts was not in ascending order.")
    if any(part.size < MIN_PART_BYTES for part in chosen[:-1]):
        raise AwsError("EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size")
    return chosen
