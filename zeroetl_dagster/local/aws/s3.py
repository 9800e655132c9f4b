"""S3's HTTP face over `s3_objects.Objects`: requests routed by method and sub-resource, bodies streamed both ways.

XML and headers are parsed and written by moto's rest-xml machinery over botocore's model, as for the other services;
only object bodies never pass through memory. Requests are path-style (`/bucket/key`), as every client addresses a
loopback endpoint. Buckets have their Region and account; a bucket of another account asks its bucket policy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from moto.core.parse import RequestParserError, RestXMLParser
from moto.core.serialize import S3Serializer, SerializationContext
from werkzeug.datastructures import EnvironHeaders, Headers, MultiDict

from zeroetl_dagster.local.aws import policy
from zeroetl_dagster.local.aws.app import CALLER
from zeroetl_dagster.local.aws.errors import AwsError, not_implemented
from zeroetl_dagster.local.aws.identities import Identities
from zeroetl_dagster.local.aws.s3_bodies import Body, Range
from zeroetl_dagster.local.aws.s3_buckets import BucketOperations
from zeroetl_dagster.local.aws.s3_keys import ObjectOperations
from zeroetl_dagster.local.aws.s3_objects import Bucket
from zeroetl_dagster.local.aws.service import Call, Service

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from zeroetl_dagster.local.world import World

STATUS = {
    "AccessDenied": 403,
    "BucketAlreadyExists": 409,
    "BucketAlreadyOwnedByYou": 409,
    "BucketNotEmpty": 409,
    "InvalidRange": 416,
    "MethodNotAllowed": 405,
    "NoSuchBucket": 404,
    "NoSuchBucketPolicy": 404,
    "NoSuchKey": 404,
    "NoSuchUpload": 404,
    "NotModified": 304,
    "PreconditionFailed": 412,
}
# Query parameters that choose the operation, not its arguments (botocore's model, request URIs).
_SELECTORS = re.compile(r"[?&]([a-zA-Z-]+)")
# Operations whose IAM action has another name (Service Authorization Reference, S3).
_ACTIONS = {
    "ListObjectsV2": "ListBucket",
    "ListObjects": "ListBucket",
    "HeadBucket": "ListBucket",
    "HeadObject": "GetObject",
    "GetObjectAttributes": "GetObject",
    "CopyObject": "PutObject",
    "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject",
    "UploadPartCopy": "PutObject",
    "CompleteMultipartUpload": "PutObject",
    "DeleteObjects": "DeleteObject",
    "ListParts": "ListMultipartUploadParts",
    "ListMultipartUploads": "ListBucketMultipartUploads",
}


@dataclass(frozen=True)
class S3Call(Call):
    """A call with what S3 needs besides the parsed parameters."""

    body: Body
    headers: Headers

    def owned(self, name: str) -> Bucket:
        """The bucket, if the caller may do this operation on it.

        Raises `AwsError` NoSuchBucket or AccessDenied.
        """
        found = self.world.objects.bucket(name)
        if found is None:
            raise AwsError("NoSuchBucket", f"The specified bucket does not exist: {name}", 404)
        expected = self.params.get("ExpectedBucketOwner")
        if expected and expected != found.account:
            raise AwsError("AccessDenied", "Access Denied", 403)
        self.authorize(found, self.operation, self.params.get("Key"))
        return found

    def authorize(self, bucket: Bucket, operation: str, key: str | None) -> None:
        action = "s3:" + _ACTIONS.get(operation, operation)
        resource = f"arn:aws:s3:::{bucket.name}" + (f"/{key}" if key is not None else "")
        caller = Identities.of_world(self.world).caller(self.caller.access_key)
        if not may_access(self.world, bucket, caller.account, caller.principal, action, resource):
            raise AwsError(
                "AccessDenied",
                f"User: {caller.arn} is not authorized to perform: {action} on resource: {resource}",
                403,
            )


def may_access(
    world: World, bucket: Bucket, account: str, principal: policy.Principal, action: str, resource: str
) -> bool:
    """What the bucket's policy says; a bucket of another account needs its Allow, one's own only the lack of a Deny."""
    document = bucket.config.get("Policy")
    said = policy.decide([document], action=action, resource=resource, principal=principal) if document else None
    return said == "Allow" if bucket.account != account else said != "Deny"


class S3(BucketOperations, ObjectOperations, Service):
    """The `s3` service."""

    name = "s3"

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        caller = environ[CALLER]
        request = _Request(environ)
        operation = "HeadBucket"
        try:
            operation = _operation(self, request)
            model = self.model.operation_model(operation)
            call = S3Call(self.world, caller, operation, request.params(model), request.body, request.headers)
            answer = dict(self.operations[operation](call))
        except AwsError as error:
            request.body.drain()
            return self._refuse(operation, environ, error, caller.request_id, start_response)
        return self._answer(operation, environ, answer, caller.request_id, start_response)

    def _answer(
        self, operation: str, environ: WSGIEnvironment, answer: dict[str, Any], request_id: str, start: StartResponse
    ) -> Iterable[bytes]:
        content = answer.pop("Body", None)
        status = answer.pop("_status", None)
        extra = answer.pop("_headers", {})
        model = self.model.operation_model(operation)
        response = S3Serializer(model, SerializationContext(request_id)).serialize(answer)
        body = response["body"]
        payload = body.encode() if isinstance(body, str) else body
        headers = {**response["headers"], **extra}
        if isinstance(content, Range):
            headers["Content-Length"] = str(content.length)
            headers.setdefault("Content-Type", "binary/octet-stream")
            stream: Iterable[bytes] = _stream(content) if environ["REQUEST_METHOD"] != "HEAD" else []
        else:
            headers.setdefault("Content-Length", str(len(payload)))
            stream = [payload]
        start(f"{status or response['status_code']} OK", [(k, str(v)) for k, v in headers.items()])
        return stream

    def _refuse(
        self, operation: str, environ: WSGIEnvironment, error: AwsError, request_id: str, start: StartResponse
    ) -> Iterable[bytes]:
        status = error.http_status or STATUS.get(error.code, 400)
        inner = {"Code": error.code, "Message": error.message, "RequestId": request_id}
        serializer = S3Serializer(self.model.operation_model(operation), SerializationContext(request_id))
        body = serializer._serialize_body({"Error": inner}).encode()
        if environ["REQUEST_METHOD"] == "HEAD" or status == 304:
            body = b""
        start(f"{status} {error.code}", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]


class _Request:
    """What the wire says: method, bucket and key (decoded exactly once), query, headers, and the body as a stream."""

    def __init__(self, environ: WSGIEnvironment) -> None:
        self.method: str = environ["REQUEST_METHOD"]
        raw = str(environ.get("RAW_URI") or environ.get("REQUEST_URI") or environ["PATH_INFO"])
        raw = re.sub(r"^https?://[^/]*", "", raw)
        path, _, self.query_string = raw.partition("?")
        host = environ.get("HTTP_HOST", "").rsplit(":", 1)[0]
        if host.endswith(".localhost"):  # virtual-hosted style
            path = f"/{host.removesuffix('.localhost')}{path}"
        bucket, _, key = path.lstrip("/").partition("/") if path.startswith("/") else ("", "", "")
        self.bucket, self.key = unquote(bucket), unquote(key, errors="surrogateescape")
        self.headers = Headers(list(EnvironHeaders(environ)))
        self.body = Body(environ)

    @property
    def query(self) -> MultiDict[str, str]:
        pairs = (item.partition("=") for item in self.query_string.split("&") if item)
        return MultiDict([(unquote(k), unquote(v.replace("+", " "))) for k, _, v in pairs])

    def params(self, model: Any) -> dict[str, Any]:
        streaming = model.has_streaming_input
        request: Any = {
            "method": self.method,
            "values": self.query,
            "headers": self.headers,
            "body": b"" if streaming else self.body.read_all(),
            "url_path": "",
            "url_params": {"Bucket": self.bucket, "Key": self.key},
        }
        try:
            parsed = RestXMLParser(model).parse(request)
        except (RequestParserError, ValueError) as error:
            raise AwsError(
                "MalformedXML", f"The XML you provided was not well-formed or did not validate: {error}"
            ) from None
        return {name: value for name, value in parsed.items() if value is not None}


def _operation(service: S3, request: _Request) -> str:
    """The operation that a request means. Raises `AwsError` NotImplemented for one that is not served here."""
    query = request.query
    for name, selectors, required in _routes(service):
        method, level = required
        if method != request.method or level != (2 if request.key else 1 if request.bucket else 0):
            continue
        if all(selector in query for selector in selectors):
            found = _by_arguments(name, request, query)
            if found not in service.operations:
                raise not_implemented("s3", found)
            return found
    raise not_implemented("s3", f"{request.method} {request.query_string or '/'}")


def _by_arguments(name: str, request: _Request, query: Mapping[str, str]) -> str:
    """Operations that share method and path, told apart by an argument."""
    if name == "PutObject":
        part, copy = "partNumber" in query, "x-amz-copy-source" in request.headers
        return {(True, True): "UploadPartCopy", (True, False): "UploadPart", (False, True): "CopyObject"}.get(
            (part, copy), name
        )
    if "uploadId" in query:
        by_upload = {"GetObject": "ListParts", "DeleteObject": "AbortMultipartUpload"}
        return by_upload.get(name, name)
    return name


_ROUTES: list[tuple[str, tuple[str, ...], tuple[str, int]]] = []
_SHADOWED = {"UploadPart", "UploadPartCopy", "CopyObject", "ListParts", "AbortMultipartUpload", "ListDirectoryBuckets"}
_DEPRECATED = {"GetBucketLifecycle", "PutBucketLifecycle", "GetBucketNotification", "PutBucketNotification"}


def _routes(service: S3) -> list[tuple[str, tuple[str, ...], tuple[str, int]]]:
    """(operation, selectors, (method, path depth)), the most specific first; made once from the model."""
    if not _ROUTES:
        for name in service.model.operation_names:
            if name in _SHADOWED | _DEPRECATED:
                continue
            http = service.model.operation_model(name).http
            path, _, query = http["requestUri"].partition("?")
            selectors = tuple(_SELECTORS.findall("?" + query)) if query else ()
            level = 2 if "{Key" in path else 1 if "{Bucket" in path else 0
            if level or path == "/":
                _ROUTES.append((name, selectors, (http["method"], level)))
        preferred = {"List": 1}  # "ListBucketX?x" asks without an id what "GetBucketX?x" asks with one
        _ROUTES.sort(key=lambda route: (-len(route[1]), preferred.get(route[0][:4], 0)))
    return _ROUTES


def _stream(content: Range) -> Iterator[bytes]:
    file = content.path.open("rb")  # opened before the first byte: a later delete does not cut the answer

    def read() -> Iterator[bytes]:
        with file:
            file.seek(content.start)
            left = content.length
            while left and (chunk := file.read(min(left, 1 << 18))):
                left -= len(chunk)
                yield chunk

    return read()
