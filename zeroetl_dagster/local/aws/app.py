"""The one endpoint of the embedded AWS: every request is given to its service by the SigV4 credential scope.

`build_app` makes the WSGI application, `Server` serves it on 127.0.0.1. Services are WSGI applications themselves; they
find who calls, for which account and Region, in `environ[CALLER]`. Signatures are not verified: whoever may open a
loopback connection may call.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from werkzeug.serving import WSGIRequestHandler, make_server

from zeroetl_dagster.local.aws.errors import AwsError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger("zeroetl.local.aws")

CALLER = "zeroetl.caller"
_SCOPE = re.compile(r"(?P<key>[^/=\s]+)/\d{8}/(?P<region>[a-z0-9-]+)/(?P<service>[a-z0-9-]+)/aws4_request")
# Services whose errors are XML though their requests carry no Action (protocol rest-xml).
_REST_XML = {"s3", "s3-control", "s3express", "route53", "cloudfront"}


@dataclass(frozen=True)
class Caller:
    """Who calls which service: read from the credential scope, never from the body."""

    access_key: str
    account: str
    region: str
    service: str
    request_id: str


def build_app(
    services: Mapping[str, WSGIApplication],
    *,
    default_account: str,
    account_of: Callable[[str], str | None] = lambda access_key: None,
) -> WSGIApplication:
    """An application that dispatches by the service name in the credential scope ("rds", "monitoring", "s3", ...).

    `account_of` maps an access key to its account (None: `default_account`) and raises `AwsError` for a key that may
    not call: unknown, or of a session that has ended.
    """

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request_id = str(uuid.uuid4())

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
            return start_response(status, _with_ids(headers, request_id), exc_info)

        scope = _scope(environ)
        if scope is None:
            missing = AwsError("MissingAuthenticationToken", "Missing Authentication Token", 403)
            return _refuse(environ, start, "", missing, request_id)
        key, region, service = scope
        try:
            account = account_of(key) or default_account
        except AwsError as error:
            return _refuse(environ, start, service, _as_service_says(error, service), request_id)
        environ[CALLER] = Caller(key, account, region, service, request_id)
        found = services.get(service)
        if found is None:
            return _refuse(environ, start, service, _unknown(environ, service, services), request_id)
        try:
            return found(environ, start)
        except AwsError as error:
            return _refuse(environ, start, service, error, request_id)
        except Exception:  # a fault of ours: the client learns where to look, the log has the trace
            log.exception("%s failed (request %s)", service, request_id)
            fault = AwsError("InternalFailure", f"The embedded AWS failed; its log has request {request_id}.", 500)
            return _refuse(environ, start, service, fault, request_id)

    return app


class Server:
    """Serves an application on 127.0.0.1, a thread a request, without a line of log for each."""

    def __init__(self, app: WSGIApplication, port: int = 0) -> None:
        self._server = make_server("127.0.0.1", port, app, threaded=True, request_handler=_QuietHandler)
        self._server.daemon_threads = True  # type: ignore[attr-defined]
        # The interval is how long `stop` may have to wait.
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="aws-endpoint", daemon=True
        )

    @property
    def port(self) -> int:
        return int(self._server.server_port)

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)


class _QuietHandler(WSGIRequestHandler):
    server_version = "zeroetl"
    sys_version = ""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass

    def log(self, type: str, message: str, *args: object) -> None:
        log.debug(message, *args)


def operation_name(environ: WSGIEnvironment) -> str:
    """What the request asks for, as far as it says so; for messages about requests that nobody parses."""
    if target := environ.get("HTTP_X_AMZ_TARGET"):
        return str(target).rpartition(".")[2]
    for source in (environ.get("QUERY_STRING", ""), _form(environ)):
        if action := parse_qs(source).get("Action"):
            return action[0]
    return f"{environ.get('REQUEST_METHOD')} {environ.get('PATH_INFO')}"


def _scope(environ: WSGIEnvironment) -> tuple[str, str, str] | None:
    query = parse_qs(environ.get("QUERY_STRING", ""))
    if "AWSAccessKeyId" in query:  # a URL presigned with signature version 2, boto3's default for S3
        return query["AWSAccessKeyId"][0], "us-east-1", "s3"
    presigned = query.get("X-Amz-Credential", [""])[0]
    found = _SCOPE.search(environ.get("HTTP_AUTHORIZATION", "")) or _SCOPE.search(presigned)
    return (found["key"], found["region"], found["service"]) if found else None


def _with_ids(headers: list[tuple[str, str]], request_id: str) -> list[tuple[str, str]]:
    present = {name.lower() for name, _ in headers}
    extra = [
        ("x-amzn-RequestId", request_id),
        ("x-amz-request-id", request_id),
        ("Date", formatdate(usegmt=True)),
    ]
    return headers + [(name, value) for name, value in extra if name.lower() not in present]


def _as_service_says(error: AwsError, service: str) -> AwsError:
    """The code of a refused key, which differs between AWS's protocols."""
    codes = {
        "json": {"ExpiredToken": "ExpiredTokenException", "InvalidClientTokenId": "UnrecognizedClientException"},
        "rest-xml": {"InvalidClientTokenId": "InvalidAccessKeyId"},
    }
    code = codes.get(_protocol(service) or "", {}).get(error.code, error.code)
    return AwsError(code, error.message, error.http_status)


def _unknown(environ: WSGIEnvironment, service: str, services: Mapping[str, object]) -> AwsError:
    return AwsError(
        "NotImplemented",
        f"The embedded AWS does not implement {service}:{operation_name(environ)}; of the service {service} it "
        f"implements nothing. Its services: {', '.join(sorted(services))}.",
    )


def _form(environ: WSGIEnvironment) -> str:
    if "x-www-form-urlencoded" not in environ.get("CONTENT_TYPE", ""):
        return ""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body: bytes = environ["wsgi.input"].read(min(length, 1_000_000))
    return body.decode("utf-8", "replace")


@cache
def _protocol(service: str) -> str | None:
    """The wire protocol of a service nobody here implements, from botocore's models."""
    import botocore.session
    from botocore.exceptions import UnknownServiceError

    if service in _REST_XML:
        return "rest-xml"
    try:
        return str(botocore.session.get_session().get_service_model(service).protocol)
    except UnknownServiceError:
        return None


def _refuse(
    environ: WSGIEnvironment, start_response: StartResponse, service: str, error: AwsError, request_id: str
) -> Iterable[bytes]:
    """An error in the shape that the client of an unknown service most probably parses."""
    protocol = _protocol(service)
    status = f"{error.http_status or 400} {error.code}"
    if protocol in ("query", "ec2", "rest-xml") or "x-www-form-urlencoded" in environ.get("CONTENT_TYPE", ""):
        start_response(status, [("Content-Type", "text/xml")])
        return [_xml(error, request_id, protocol).encode()]
    headers = [("Content-Type", "application/x-amz-json-1.1"), ("x-amzn-errortype", error.code)]
    start_response(status, headers)
    return [json.dumps({"__type": error.code, "message": error.message}).encode()]


def _xml(error: AwsError, request_id: str, protocol: str | None) -> str:
    inner = f"<Code>{escape(error.code)}</Code><Message>{escape(error.message)}</Message>"
    if protocol == "ec2":
        return f"<Response><Errors><Error>{inner}</Error></Errors><RequestID>{request_id}</RequestID></Response>"
    if protocol == "rest-xml":
        return f"<Error>{inner}<RequestId>{request_id}</RequestId></Error>"
    return (
        f"<ErrorResponse><Error><Type>Sender</Type>{inner}</Error><RequestId>{request_id}</RequestId></ErrorResponse>"
    )
