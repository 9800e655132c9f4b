"""What every service of the embedded AWS shares: parse a request by botocore's model, run one method, answer.

A service is a class with one method an operation (`create_integration` for `CreateIntegration`), taking a `Call` and
returning a dict in AWS's member names; whatever has no method is refused by name. Parsing and serialising are moto's
(`moto.core.parse`, `moto.core.serialize`), over botocore's own models; constraints that AWS checks before it runs an
operation (required members, types, lengths, ranges, enumerations, patterns) are checked here from the same models.
Protocols: query (rds, redshift, older clients of cloudwatch) and json (redshift-serverless, cloudwatch, athena, glue).
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qsl

from botocore import xform_name
from botocore.model import OperationNotFoundError
from botocore.utils import parse_timestamp
from moto.core.errors import ErrorLookupFactory, ErrorShape
from moto.core.model import OperationModel, ServiceModel, Shape, StructureShape
from moto.core.parse import PROTOCOL_PARSERS
from moto.core.serialize import ResponseDict, ResponseSerializer, SerializationContext, get_serializer_class
from moto.core.utils import get_service_model

from zeroetl_dagster.local.aws.app import CALLER, Caller
from zeroetl_dagster.local.aws.errors import AwsError, not_implemented

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from zeroetl_dagster.local.world import World

MAX_BODY_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Call:
    """One request to one operation. `params` has AWS's member names, already of AWS's types."""

    world: World
    caller: Caller
    operation: str
    params: dict[str, Any]

    @property
    def account(self) -> str:
        return self.caller.account

    @property
    def region(self) -> str:
        return self.caller.region

    @property
    def access_key(self) -> str:
        return self.caller.access_key

    @property
    def request_id(self) -> str:
        return self.caller.request_id

    def key(self, identifier: str) -> str:
        """The store's key of a resource of this account and Region."""
        return f"{self.account}/{self.region}/{identifier}"

    @property
    def prefix(self) -> str:
        return self.key("")

    def arn(self, service: str, resource: str) -> str:
        """`resource` as it follows the account, e.g. "cluster:tickit-source"."""
        return f"arn:aws:{service}:{self.region}:{self.account}:{resource}"

    def only(self, *implemented: str) -> None:
        """Refuse a parameter whose effect does not exist here, instead of accepting it and doing nothing."""
        for name, value in self.params.items():
            if name not in implemented and value not in (None, False, "", [], {}):
                raise not_implemented(self.caller.service, f"{self.operation} with {name}")


class Service:
    """One service: derive, set `name` (botocore's), write one method an operation."""

    name: ClassVar[str]

    def __init__(self, world: World) -> None:
        self.world = world

    @cached_property
    def model(self) -> ServiceModel:
        return get_service_model(self.name)

    @cached_property
    def operations(self) -> dict[str, Callable[[Call], Mapping[str, Any]]]:
        """What is implemented, by AWS's operation names."""
        return {
            operation: getattr(self, xform_name(operation))
            for operation in self.model.operation_names
            if hasattr(self, xform_name(operation))
        }

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        caller: Caller = environ[CALLER]
        protocol, operation, body, values = _read(environ)
        model = self._operation_model(operation)
        serializer = get_serializer_class(self.name, protocol)(model, SerializationContext(caller.request_id))
        try:
            if operation not in self.operations:
                raise self._refusal(operation)
            params = _parse(protocol, model, body, values)
            validate(params, model.input_shape, protocol)
            answer = self.operations[operation](Call(self.world, caller, operation, params))
            response = serializer.serialize(answer)
        except AwsError as error:
            response = _error_response(serializer, self.model, error)
        return _send(response, protocol, self.model, start_response)

    def _operation_model(self, operation: str) -> OperationModel:
        try:
            return self.model.operation_model(operation)
        except OperationNotFoundError:
            return OperationModel({}, self.model)

    def _refusal(self, operation: str) -> AwsError:
        if operation in self.model.operation_names:
            return not_implemented(self.name, operation)
        return AwsError("InvalidAction", f"Could not find operation {operation} of {self.name}.")


def page(
    items: list[dict[str, Any]], size: int | None, marker: str | None, *, default: int = 100
) -> tuple[list[dict[str, Any]], str | None]:
    """One page and the marker of the next (None at the end). Markers are positions, opaque to clients.

    Raises `AwsError` InvalidParameterValue for a marker that no answer has given.
    """
    start = 0
    if marker:
        if not marker.isdigit():
            raise AwsError("InvalidParameterValue", f"Invalid Marker: {marker}. Use the one of the previous answer.")
        start = int(marker)
    end = start + (size or default)
    return items[start:end], str(end) if end < len(items) else None


def bounded(call: Call, *, low: int = 20, high: int = 100) -> int | None:
    """MaxRecords within AWS's limits. Raises `AwsError` InvalidParameterValue."""
    value: int | None = call.params.get("MaxRecords")
    if value is not None and not low <= value <= high:
        raise AwsError(
            "InvalidParameterValue", f"Invalid value {value} for MaxRecords. Must be between {low} and {high}."
        )
    return value


def validate(params: Any, shape: Shape | None, protocol: str) -> None:
    """Check against botocore's shapes; one message lists everything found. Raises `AwsError`.

    The code is AWS's: ValidationError for query services, ValidationException for json ones, MissingParameter for a
    required member of a query service.
    """
    if shape is None:
        return
    if protocol == "query":
        for name in shape.required_members:
            if name not in params:
                raise AwsError("MissingParameter", f"The request must contain the parameter {name}")
    found = list(_violations(params, shape, ""))
    if found:
        count = f"{len(found)} validation error{'s' if len(found) > 1 else ''} detected: "
        code = "ValidationError" if protocol == "query" else "ValidationException"
        raise AwsError(code, count + "; ".join(found))


def _violations(value: Any, shape: Shape, path: str) -> Iterator[str]:
    kind = shape.type_name
    if kind == "structure":
        yield from _structure_violations(value, shape, path)
    elif kind == "list":
        yield from _length(value, shape, path)
        for index, item in enumerate(value, 1):
            yield from _violations(item, shape.member, f"{path}.{index}.member")
    elif kind == "map":
        for key, item in value.items():
            yield from _violations(key, shape.key, f"{path}.key")
            yield from _violations(item, shape.value, f"{path}.{key}")
    elif kind == "string":
        yield from _string_violations(value, shape, path)
    elif kind in ("integer", "long", "float", "double"):
        low, high = shape.metadata.get("min"), shape.metadata.get("max")
        if low is not None and value < low:
            yield _failed(value, path, f"have value greater than or equal to {low}")
        if high is not None and value > high:
            yield _failed(value, path, f"have value less than or equal to {high}")


def _structure_violations(value: Any, shape: Shape, path: str) -> Iterator[str]:
    assert isinstance(shape, StructureShape)
    if not isinstance(value, Mapping):
        yield f"Value at '{path.lstrip('.')}' must be a structure"
        return
    for name in shape.required_members:
        if name not in value:
            yield _failed(None, f"{path}.{_lower(name)}", "not be null")
    for name, item in value.items():
        if item is not None:
            yield from _violations(item, shape.members[name], f"{path}.{_lower(name)}")


def _string_violations(value: Any, shape: Shape, path: str) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"Value at '{path.lstrip('.')}' must be a string"
        return
    yield from _length(value, shape, path)
    allowed = shape.metadata.get("enum")
    if allowed and value not in allowed:
        yield _failed(_shown(value, shape), path, f"satisfy enum value set: [{', '.join(allowed)}]")
    pattern = shape.metadata.get("pattern")
    if pattern and not _compiled(pattern).fullmatch(value):
        yield _failed(_shown(value, shape), path, f"satisfy regular expression pattern: {pattern}")


# Java's Unicode classes in terms that Python knows, for use inside [...]
_CLASSES = {
    "L": r"\w",
    "N": r"\d",
    "M": "\u0300-\u036f",
    "Z": r"\s",
    "P": "!-/:-@\\[-`{-~\u00a1-\u00bf\u2010-\u2bff\u3001-\u303f\uff01-\uff0f\uff1a-\uff20",
    "S": "$+<=>^`|~\u00a2-\u00b4\u2030-\u2bff",
}


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    # botocore's patterns are Java's; of those used by the services here only \p{..}, \z and surrogates differ
    portable = re.sub(r"\\p\{([LNMZPS])[a-z]?\}", lambda found: _CLASSES[found[1]], pattern).replace(r"\z", r"\Z")
    portable = portable.replace(r"\uD800\uDC00-\uDBFF\uDFFF", r"\U00010000-\U0010FFFF")
    return re.compile(portable)


def _length(value: Any, shape: Shape, path: str) -> Iterator[str]:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if low is not None and len(value) < low:
        yield _failed(_shown(value, shape), path, f"have length greater than or equal to {low}")
    if high is not None and len(value) > high:
        yield _failed(_shown(value, shape), path, f"have length less than or equal to {high}")


def _shown(value: Any, shape: Shape) -> Any:
    return "<sensitiveDataRedacted>" if shape.metadata.get("sensitive") else value


def _failed(value: Any, path: str, constraint: str) -> str:
    shown = "Value null" if value is None else f"Value '{value}'"
    return f"{shown} at '{path.lstrip('.')}' failed to satisfy constraint: Member must {constraint}"


def _lower(name: str) -> str:
    return name[:1].lower() + name[1:]


def _read(environ: WSGIEnvironment) -> tuple[str, str, bytes, dict[str, str]]:
    """Protocol, operation, body and form values of a request."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if length > MAX_BODY_BYTES:
        raise AwsError("RequestEntityTooLarge", f"{length} bytes of request; the limit is {MAX_BODY_BYTES}.", 413)
    body: bytes = environ["wsgi.input"].read(length)
    if environ.get("HTTP_CONTENT_ENCODING") == "gzip":  # boto3 compresses large PutMetricData requests
        try:
            body = gzip.decompress(body)
        except (OSError, EOFError) as error:
            raise AwsError("SerializationException", f"The body is not gzip, though it says so: {error}") from None
    if smithy := environ.get("HTTP_SMITHY_PROTOCOL"):  # not botocore's choice for any service here
        raise not_implemented("any service", f"requests in the protocol {smithy} (it speaks json and query)")
    if target := environ.get("HTTP_X_AMZ_TARGET"):
        return "json", str(target).rpartition(".")[2], body, {}
    values = dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))
    values |= dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    return "query", values.get("Action", ""), body, values


def _parse(protocol: str, model: OperationModel, body: bytes, values: dict[str, str]) -> dict[str, Any]:
    parser = PROTOCOL_PARSERS[protocol](model, timestamp_parser=parse_timestamp)
    request: Any = {"method": "POST", "values": values, "headers": {}, "body": body, "url_path": "/", "url_params": {}}
    try:
        if protocol == "json":
            json.loads(body or b"{}")
        parsed: dict[str, Any] = parser.parse(request)
    except (ValueError, TypeError, AttributeError) as error:
        code = "SerializationException" if protocol == "json" else "MalformedInput"
        raise AwsError(code, f"The request does not fit the model of {model.name}: {error}") from error
    return parsed


def _error_response(serializer: ResponseSerializer, model: ServiceModel, error: AwsError) -> ResponseDict:
    shape = ErrorLookupFactory().for_service(model).from_code(error.code) or _common_error(error.code)
    serialized: dict[str, Any] = {}
    serializer._serialize_error_metadata(serialized, error, shape)
    response = serializer._serialized_error_to_response(serializer._create_default_response(), error, shape, serialized)
    if error.http_status is not None:
        response["status_code"] = error.http_status
    return response


def _common_error(code: str) -> ErrorShape:
    """A code that AWS uses but no model declares."""
    return ErrorShape(code, {"exception": True, "type": "structure", "members": {}, "error": {"code": code}})


def _send(response: ResponseDict, protocol: str, model: ServiceModel, start_response: StartResponse) -> Iterable[bytes]:
    headers = dict(response["headers"])
    if protocol == "json":
        headers["Content-Type"] = f"application/x-amz-json-{model.metadata.get('jsonVersion', '1.0')}"
    body = response["body"]
    status = response["status_code"]
    start_response(f"{status} {'OK' if status < 300 else 'Error'}", list(headers.items()))
    return [body.encode() if isinstance(body, str) else body]
