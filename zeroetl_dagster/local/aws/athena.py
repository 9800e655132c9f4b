"""The `athena` service: queries, their results, and the catalogue as Athena shows it.

What runs a query is `zeroetl_dagster.local.athena` (DuckDB behind Trino's SQL); its life is `athena_runs.py`.
"""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zeroetl_dagster.local.athena import results
from zeroetl_dagster.local.athena.errors import InvalidStatement
from zeroetl_dagster.local.athena.hive_types import parse
from zeroetl_dagster.local.athena.statements import Statement, parse_statement
from zeroetl_dagster.local.aws.athena_runs import DONE, KIND, REUSE, Runs, reuse_key
from zeroetl_dagster.local.aws.athena_workgroups import ENGINE, PRIMARY, WorkgroupOperations, workgroup
from zeroetl_dagster.local.aws.errors import AwsError
from zeroetl_dagster.local.aws.glue_catalogue import Catalogue, Document
from zeroetl_dagster.local.aws.identities import Identities
from zeroetl_dagster.local.aws.s3 import may_access
from zeroetl_dagster.local.aws.s3_objects import split_url
from zeroetl_dagster.local.aws.service import Call, Service, page

if TYPE_CHECKING:
    from zeroetl_dagster.local.world import World

CATALOG = "AwsDataCatalog"
MAX_ACTIVE = 200


class Athena(WorkgroupOperations, Service):
    """Queries, workgroups and metadata."""

    name = "athena"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.runs = Runs(world)

    # ---- queries ---------------------------------------------------------------------------------------------------

    def start_query_execution(self, call: Call) -> Document:
        call.only(
            "QueryString", "ClientRequestToken", "QueryExecutionContext", "ResultConfiguration", "WorkGroup",
            "ExecutionParameters", "ResultReuseConfiguration",
        )  # fmt: skip
        if (known := _by_token(call)) is not None:
            return {"QueryExecutionId": known}
        group = workgroup(call, call.params.get("WorkGroup", PRIMARY))
        if group["State"] != "ENABLED":
            raise AwsError("InvalidRequestException", f"WorkGroup {group['Name']} is disabled.")
        try:
            statement = parse_statement(call.params["QueryString"], call.params.get("ExecutionParameters"))
        except InvalidStatement as error:
            raise AwsError("InvalidRequestException", str(error)) from None
        _require_catalog(call.params.get("QueryExecutionContext", {}).get("Catalog", CATALOG))
        document = _document(call, group, statement)
        key = call.key(document["QueryExecutionId"])
        if self.runs.active(call.prefix) >= MAX_ACTIVE:
            raise AwsError(
                "TooManyRequestsException",
                "You have exceeded the limit for the number of queries you can run concurrently. Please reduce the "
                "number of concurrent queries submitted by this account.",
            )
        if not self._reuse(call, key, document):
            cutoff = group["Configuration"].get("BytesScannedCutoffPerQuery")
            self.runs.submit(key, document, statement, cutoff=cutoff)
        _remember_token(call, document["QueryExecutionId"])
        return {"QueryExecutionId": document["QueryExecutionId"]}

    def _reuse(self, call: Call, key: str, document: Document) -> bool:
        """Answer from an earlier result of the same query, if it is young enough and still there."""
        asked = call.params.get("ResultReuseConfiguration", {}).get("ResultReuseByAgeConfiguration", {})
        if not asked.get("Enabled") or document["SubstatementType"] != "SELECT":
            return False
        held = call.world.store.get(REUSE, reuse_key(key, document))
        if held is None or held["at"] < time.time() - asked.get("MaxAgeInMinutes", 60) * 60:
            return False
        earlier = call.world.store.get(KIND, call.key(held["query"]))
        if earlier is None or call.world.objects.path_of(*split_url(_location(earlier))) is None:
            return False
        now = time.time()
        document |= {name: earlier[name] for name in ("columns", "types", "rows", "ResultConfiguration")}
        document["Status"] |= {"State": "SUCCEEDED", "CompletionDateTime": now}
        document["Statistics"] |= {
            "ResultReuseInformation": {"ReusedPreviousResult": True},
            "TotalExecutionTimeInMillis": int((now - document["Status"]["SubmissionDateTime"]) * 1000),
        }
        call.world.store.put(KIND, key, document)
        return True

    def stop_query_execution(self, call: Call) -> Document:
        _query(call)
        self.runs.stop(call.key(call.params["QueryExecutionId"]))
        return {}

    def get_query_execution(self, call: Call) -> Document:
        return {"QueryExecution": _shown(_query(call))}

    def batch_get_query_execution(self, call: Call) -> Document:
        found, missing = [], []
        for query_id in call.params["QueryExecutionIds"]:
            document = call.world.store.get(KIND, call.key(query_id))
            if document is None:
                message = f"QueryExecution {query_id} was not found"
                missing.append(
                    {"QueryExecutionId": query_id, "ErrorCode": "INVALID_QUERY_EXECUTION_ID", "ErrorMessage": message}
                )
            else:
                found.append(_shown(document))
        return {"QueryExecutions": found, "UnprocessedQueryExecutionIds": missing}

    def list_query_executions(self, call: Call) -> Document:
        group = workgroup(call, call.params.get("WorkGroup", PRIMARY))["Name"]
        found = [q for q in call.world.store.list(KIND, call.prefix) if q["WorkGroup"] == group]
        found.sort(key=lambda query: -query["Status"]["SubmissionDateTime"])
        items, token = page(found, call.params.get("MaxResults"), call.params.get("NextToken"), default=50)
        ids = [query["QueryExecutionId"] for query in items]
        return {"QueryExecutionIds": ids} | ({"NextToken": token} if token else {})

    def get_query_results(self, call: Call) -> Document:
        document = _query(call)
        state = document["Status"]["State"]
        if state not in DONE:
            raise AwsError("InvalidRequestException", f"Query has not yet finished. Current state: {state}")
        if state != "SUCCEEDED":
            message = f"Query did not finish successfully. Final query state: {state}"
            raise AwsError("InvalidRequestException", message)
        info = document.get("types") or results.column_info(
            [(name, parse(kind)) for name, kind in document.get("columns", [])]
        )
        answer: Document = {"ResultSet": {"Rows": [], "ResultSetMetadata": {"ColumnInfo": info}}}
        answer["UpdateCount"] = document.get("update_count", 0)
        if "update_count" in document:
            return answer
        size = min(call.params.get("MaxResults", 1000), 1000)
        rows, position = _page_of(call, document, size)
        answer["ResultSet"]["Rows"] = [
            {"Data": [{} if value is None else {"VarCharValue": value} for value in row]} for row in rows
        ]
        return answer | ({"NextToken": _token(document, position)} if position is not None else {})

    def get_query_runtime_statistics(self, call: Call) -> Document:
        document = _query(call)
        statistics = document["Statistics"]
        timeline = (
            "QueryQueueTimeInMillis", "ServicePreProcessingTimeInMillis", "QueryPlanningTimeInMillis",
            "EngineExecutionTimeInMillis", "ServiceProcessingTimeInMillis", "TotalExecutionTimeInMillis",
        )  # fmt: skip
        rows = {"InputBytes": statistics["DataScannedInBytes"], "OutputRows": document.get("rows", 0)}
        shown = {name: statistics.get(name, 0) for name in timeline}
        return {"QueryRuntimeStatistics": {"Timeline": shown, "Rows": rows}}

    # ---- the catalogue ---------------------------------------------------------------------------------------------

    def list_data_catalogs(self, call: Call) -> Document:
        return {"DataCatalogsSummary": [{"CatalogName": CATALOG, "Type": "GLUE", "Status": "CREATE_COMPLETE"}]}

    def get_data_catalog(self, call: Call) -> Document:
        _require_catalog(call.params["Name"])
        return {"DataCatalog": {"Name": CATALOG, "Type": "GLUE", "Parameters": {"catalog-id": call.account}}}

    def list_databases(self, call: Call) -> Document:
        found = [_database(database) for database in _catalogue(call).databases()]
        return _paged(call, "DatabaseList", found)

    def get_database(self, call: Call) -> Document:
        return {"Database": _database(_metadata(call, lambda c: c.database(call.params["DatabaseName"])))}

    def list_table_metadata(self, call: Call) -> Document:
        tables = _metadata(call, lambda c: c.tables(call.params["DatabaseName"]))
        if pattern := call.params.get("Expression"):
            from zeroetl_dagster.local.aws.glue import name_matches

            tables = [table for table in tables if name_matches(pattern, table["Name"])]
        return _paged(call, "TableMetadataList", [_table(table) for table in tables])

    def get_table_metadata(self, call: Call) -> Document:
        found = _metadata(call, lambda c: c.table(call.params["DatabaseName"], call.params["TableName"]))
        return {"TableMetadata": _table(found)}

    def list_engine_versions(self, call: Call) -> Document:
        return {"EngineVersions": [ENGINE]}


def _document(call: Call, group: Mapping[str, Any], statement: Statement) -> Document:
    query_id = str(uuid.uuid4())
    result = _result_configuration(call, group)
    base = result["OutputLocation"].rstrip("/") + "/"
    if statement.verb == "create_table_as":
        result["OutputLocation"] = f"{base}tables/{query_id}"
    elif statement.verb in ("insert", "unload"):
        result["OutputLocation"] = f"{base}{query_id}"
    else:
        result["OutputLocation"] = f"{base}{query_id}.{'csv' if statement.verb == 'query' else 'txt'}"
    document: Document = {
        "QueryExecutionId": query_id,
        "Query": call.params["QueryString"],
        "StatementType": statement.kind,
        "SubstatementType": statement.substatement,
        "ResultConfiguration": result,
        "ResultReuseConfiguration": call.params.get(
            "ResultReuseConfiguration", {"ResultReuseByAgeConfiguration": {"Enabled": False}}
        ),
        "QueryExecutionContext": call.params.get("QueryExecutionContext", {}),
        "Status": {"State": "QUEUED", "SubmissionDateTime": time.time()},
        "Statistics": {
            "DataScannedInBytes": 0,
            "QueryPlanningTimeInMillis": 0,
            "ServiceProcessingTimeInMillis": 0,
            "ServicePreProcessingTimeInMillis": 0,
            "ResultReuseInformation": {"ReusedPreviousResult": False},
        },
        "WorkGroup": group["Name"],
        "EngineVersion": ENGINE,
        "caller": Identities.of_world(call.world).caller(call.caller.access_key).arn,
    }
    if "ExecutionParameters" in call.params:
        document["ExecutionParameters"] = call.params["ExecutionParameters"]
    return document


def _result_configuration(call: Call, group: Mapping[str, Any]) -> Document:
    """The workgroup's where it enforces it, else the client's over the workgroup's. Raises `AwsError`."""
    held = group["Configuration"]
    result = dict(held["ResultConfiguration"])
    if not (held["EnforceWorkGroupConfiguration"] and result.get("OutputLocation")):
        result |= call.params.get("ResultConfiguration", {})
    location = result.get("OutputLocation")
    if not location:
        raise AwsError(
            "InvalidRequestException",
            "No output location provided. An output location is required either through the Workgroup result "
            "configuration setting or as an API input.",
        )
    try:
        bucket_name, prefix = split_url(location)
    except ValueError as error:
        raise AwsError("InvalidRequestException", f"outputLocation is not a valid S3 path: {error}") from None
    bucket = call.world.objects.bucket(bucket_name)
    if bucket is None:
        raise AwsError("InvalidRequestException", f"Unable to verify/create output bucket {bucket_name}")
    if bucket.region != call.region:
        raise AwsError(
            "InvalidRequestException",
            "The S3 location provided to save your query results is invalid. Please check your S3 location is correct "
            f"and is in the same region and try again. ({bucket_name} is in {bucket.region})",
        )
    caller = Identities.of_world(call.world).caller(call.caller.access_key)
    resource = f"arn:aws:s3:::{bucket_name}/{prefix}"
    if not may_access(call.world, bucket, call.account, caller.principal, "s3:PutObject", resource):
        raise AwsError("InvalidRequestException", f"Access denied when writing output to url: {location}")
    return result


def _by_token(call: Call) -> str | None:
    token = call.params.get("ClientRequestToken")
    held = call.world.store.get("athena.token", call.key(token)) if token else None
    if held is None:
        return None
    if held["request"] != _request_text(call):
        raise AwsError("InvalidRequestException", "Idempotent parameters do not match")
    return str(held["query"])


def _remember_token(call: Call, query_id: str) -> None:
    if token := call.params.get("ClientRequestToken"):
        call.world.store.put("athena.token", call.key(token), {"query": query_id, "request": _request_text(call)})


def _request_text(call: Call) -> str:
    return json.dumps({name: value for name, value in sorted(call.params.items()) if name != "ClientRequestToken"})


def _query(call: Call) -> Document:
    query_id = call.params["QueryExecutionId"]
    found = call.world.store.get(KIND, call.key(query_id))
    if found is None:
        raise AwsError("InvalidRequestException", f"QueryExecution {query_id} was not found")
    return found


def _shown(document: Mapping[str, Any]) -> Document:
    return {name: value for name, value in document.items() if name[0].isupper()}


def _location(document: Mapping[str, Any]) -> str:
    return str(document["ResultConfiguration"]["OutputLocation"])


def _page_of(call: Call, document: Document, size: int) -> tuple[list[list[str | None]], int | None]:
    path = call.world.objects.path_of(*split_url(_location(document)))
    if path is None:
        raise AwsError("InvalidRequestException", "Could not find results")
    position = _position(document, call.params.get("NextToken"))
    read = results.csv_page if document["SubstatementType"] == "SELECT" else results.text_page
    with call.world.objects.reading():
        found = read(path, position, size)
    return found.rows, found.position


def _token(document: Mapping[str, Any], position: int) -> str:
    return base64.urlsafe_b64encode(f"{document['QueryExecutionId']}:{position}".encode()).decode()


def _position(document: Mapping[str, Any], token: str | None) -> int:
    if token is None:
        return 0
    try:
        query_id, _, position = base64.urlsafe_b64decode(token).decode().partition(":")
        if query_id == document["QueryExecutionId"]:
            return int(position)
    except ValueError:
        pass
    raise AwsError("InvalidRequestException", "Pagination token is invalid: use the one of the previous answer")


# ---- metadata ------------------------------------------------------------------------------------------------------


def _catalogue(call: Call) -> Catalogue:
    _require_catalog(call.params.get("CatalogName", CATALOG))
    return Catalogue(call.world.store, call.account, call.region)


def _require_catalog(name: str) -> None:
    if name.lower() != CATALOG.lower():
        raise AwsError("InvalidRequestException", f"Catalog {name} was not found (there is {CATALOG})")


def _metadata(call: Call, read: Any) -> Any:
    """The catalogue's errors come wrapped."""
    try:
        return read(_catalogue(call))
    except AwsError as error:
        if error.code != "EntityNotFoundException":
            raise
        raise AwsError(
            "MetadataException",
            f"{error.message} (Service: AmazonDataCatalog; Status Code: 400; Error Code: EntityNotFoundException; "
            f"Request ID: {call.request_id}; Proxy: null)",
        ) from None


def _database(database: Mapping[str, Any]) -> Document:
    return {name: database[name] for name in ("Name", "Description", "Parameters") if name in database}


def _table(table: Mapping[str, Any]) -> Document:
    storage = table.get("StorageDescriptor") or {}
    serde = storage.get("SerdeInfo") or {}
    parameters = {
        **table.get("Parameters", {}),
        "location": storage.get("Location", ""),
        "inputformat": storage.get("InputFormat", ""),
        "outputformat": storage.get("OutputFormat", ""),
        "serde.serialization.lib": serde.get("SerializationLibrary", ""),
        **{f"serde.param.{name}": value for name, value in (serde.get("Parameters") or {}).items()},
    }
    shown = {name: table[name] for name in ("Name", "TableType", "CreateTime", "LastAccessTime") if name in table}
    columns, keys = storage.get("Columns", []), table.get("PartitionKeys", [])
    return {**shown, "Columns": columns, "PartitionKeys": keys, "Parameters": parameters}


def _paged(call: Call, member: str, found: list[Document]) -> Document:
    items, token = page(found, call.params.get("MaxResults"), call.params.get("NextToken"), default=50)
    answer: Document = {member: items}
    return answer | ({"NextToken": token} if token else {})
