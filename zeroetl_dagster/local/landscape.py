"""The sample landscape, made as Terraform would make it: an Aurora cluster with TICKIT in it, a Redshift workgroup, and
a lake (bucket, key, roles, Athena workgroup) for its snapshot exports.

Plain boto3 and psycopg2 against the embedded AWS's public interfaces. It stops where a user's Terraform stops: the
parameter group, resource policy, case sensitivity, integration and database are the Dagster pipeline's work, and so are
exports, crawler and catalogue.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import boto3
from botocore.exceptions import ClientError, EndpointConnectionError, HTTPClientError

from zeroetl_dagster.local import supervisor, tickit
from zeroetl_dagster.local.folder import DataFolder

CLUSTER = "tickit-source"
DATABASE = "tickit"
PARAMETER_GROUP = "tickit-zero-etl"
WORKGROUP = "tickit-analytics"
BUCKET = "tickit-lake"
KEY_ALIAS = "alias/tickit-export"
EXPORT_ROLE = "tickit-export"
CRAWLER_ROLE = "tickit-crawler"
ATHENA_WORKGROUP = "tickit"

# What Aurora PostgreSQL needs for zero-ETL (Aurora guide, "Getting started with zero-ETL integrations", step 1).
ZERO_ETL_PARAMETERS = {
    "rds.logical_replication": "1",
    "aurora.enhanced_logical_replication": "1",
    "aurora.logical_replication_backup": "0",
    "aurora.logical_replication_globaldb": "0",
}
_WAIT = {"Delay": 1, "MaxAttempts": 120}


class LandscapeError(Exception):
    """The sample landscape is not as the command needs it."""


class EmbeddedSession(boto3.Session):
    """A boto3 session whose clients go to `endpoint_url` (boto3 itself takes it from the environment only)."""

    def __init__(self, endpoint_url: str, access_key_id: str, secret_access_key: str) -> None:
        super().__init__(access_key_id, secret_access_key, region_name=supervisor.REGION)
        self.endpoint_url = endpoint_url

    def client(self, service_name: str, *args: Any, **kwargs: Any) -> Any:
        return super().client(service_name, *args, **{"endpoint_url": self.endpoint_url, **kwargs})


def session(folder: DataFolder, endpoint_url: str) -> EmbeddedSession:
    """A session of the data folder's own key, whatever the caller's environment says."""
    key = supervisor.access_key(folder)
    return EmbeddedSession(endpoint_url, key["access_key_id"], key["secret_access_key"])


def create(aws: boto3.Session, *, say: Callable[[str], None]) -> None:
    """Create what is missing: parameter group, Aurora cluster with one instance, namespace and workgroup, the lake."""
    rds, serverless = aws.client("rds"), aws.client("redshift-serverless")
    _ignoring("DBParameterGroupAlreadyExists", lambda: _create_parameter_group(rds))
    if _ignoring("DBClusterAlreadyExistsFault", lambda: _create_cluster(rds)):
        say(f"Aurora PostgreSQL cluster {CLUSTER}: creating")
    _ignoring(
        "DBInstanceAlreadyExists",
        lambda: rds.create_db_instance(
            DBInstanceIdentifier=f"{CLUSTER}-1",
            DBClusterIdentifier=CLUSTER,
            DBInstanceClass="db.serverless",
            Engine="aurora-postgresql",
        ),
    )
    _ignoring(
        "ConflictException",
        lambda: serverless.create_namespace(namespaceName=WORKGROUP, dbName="dev", manageAdminPassword=True),
    )
    made = _ignoring(
        "ConflictException",
        lambda: serverless.create_workgroup(workgroupName=WORKGROUP, namespaceName=WORKGROUP, baseCapacity=8),
    )
    if made:
        say(f"Redshift Serverless workgroup {WORKGROUP}: creating")
    create_lake(aws)
    rds.get_waiter("db_instance_available").wait(DBInstanceIdentifier=f"{CLUSTER}-1", WaiterConfig=_WAIT)
    _wait_for_workgroup(serverless)
    say(f"source {CLUSTER} and workgroup {WORKGROUP} are available")


def create_lake(aws: boto3.Session) -> None:
    """Create what is missing for snapshot exports: bucket, KMS key, export role, crawler role, Athena workgroup."""
    _ignoring(
        "BucketAlreadyOwnedByYou",
        lambda: aws.client("s3").create_bucket(
            Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": supervisor.REGION}
        ),
    )
    key_arn = _create_key(aws.client("kms"))
    iam = aws.client("iam")
    on_bucket = [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"]
    _create_role(
        iam,
        EXPORT_ROLE,
        "export.rds.amazonaws.com",
        [
            _allow(
                ["s3:PutObject*", "s3:GetObject*", "s3:ListBucket", "s3:DeleteObject*", "s3:GetBucketLocation"],
                on_bucket,
            )
        ],
    )
    _create_role(
        iam,
        CRAWLER_ROLE,
        "glue.amazonaws.com",
        [
            _allow(["s3:GetObject", "s3:ListBucket", "s3:GetBucketLocation"], on_bucket),
            _allow(["kms:Decrypt"], [key_arn]),
            _allow(["glue:*", "logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"], ["*"]),
        ],
    )
    results = {"OutputLocation": f"s3://{BUCKET}/athena/"}
    # Not enforced: marts by CREATE TABLE AS go to a location of their own.
    configuration = {"ResultConfiguration": results, "EnforceWorkGroupConfiguration": False}
    athena = aws.client("athena")
    if ATHENA_WORKGROUP not in {group["Name"] for group in athena.list_work_groups()["WorkGroups"]}:
        athena.create_work_group(Name=ATHENA_WORKGROUP, Configuration=configuration)


def load_tickit(aws: boto3.Session, *, scale: float, say: Callable[[str], None]) -> None:
    """Fill the seven TICKIT tables of the source, replacing what they hold."""
    connection = connect_source(aws)
    try:
        tickit.load(connection, scale=scale, progress=say)
    finally:
        connection.close()


def traffic(aws: boto3.Session, *, tps: float, stop: threading.Event) -> str:
    """Sell tickets until `stop` is set; returns one line that says what was done."""
    done = tickit.traffic(lambda: connect_source(aws), tps=tps, stop=stop)
    return str(done)


def connect_source(aws: boto3.Session) -> Any:
    """A psycopg2 connection to the source's TICKIT database as its master user.

    Raises `LandscapeError` when the cluster or its instance is not there, or nothing answers (after a `down`).
    """
    import psycopg2

    try:
        cluster = aws.client("rds").describe_db_clusters(DBClusterIdentifier=CLUSTER)["DBClusters"][0]
        secret = aws.client("secretsmanager").get_secret_value(SecretId=cluster["MasterUserSecret"]["SecretArn"])
    except ClientError as error:
        if error.response["Error"]["Code"] == "DBClusterNotFoundFault":
            raise LandscapeError(f"there is no cluster {CLUSTER} yet: run `zeroetl local load-tickit`") from None
        raise
    except (EndpointConnectionError, HTTPClientError):
        raise LandscapeError("the embedded AWS does not answer any more: see `zeroetl local status`") from None
    login = json.loads(secret["SecretString"])
    return psycopg2.connect(
        host=cluster["Endpoint"],
        port=cluster["Port"],
        dbname=DATABASE,
        user=login["username"],
        password=login["password"],
    )


def describe(aws: boto3.Session) -> Iterator[str]:
    """One line for each source, target and integration of the default account and Region, and for what failed."""
    rds, serverless = aws.client("rds"), aws.client("redshift-serverless")
    for cluster in rds.describe_db_clusters()["DBClusters"]:
        where = f"{cluster.get('Endpoint')}:{cluster.get('Port')}"
        yield f"  Aurora       {cluster['DBClusterIdentifier']}  {cluster['Status']}  {where}"
    for instance in rds.describe_db_instances()["DBInstances"]:
        name, status = instance["DBInstanceIdentifier"], instance["DBInstanceStatus"]
        if not instance.get("DBClusterIdentifier"):
            endpoint = instance.get("Endpoint", {})
            yield f"  RDS          {name}  {status}  {endpoint.get('Address')}:{endpoint.get('Port')}"
        if status == "failed":
            yield from _failure(rds, name)
    for workgroup in serverless.list_workgroups()["workgroups"]:
        endpoint = workgroup.get("endpoint", {})
        where = f"{endpoint.get('address')}:{endpoint.get('port')}"
        yield f"  Redshift     {workgroup['workgroupName']}  {workgroup['status']}  {where}"
    for cluster in aws.client("redshift").describe_clusters()["Clusters"]:
        endpoint = cluster.get("Endpoint", {})
        where = f"{endpoint.get('Address')}:{endpoint.get('Port')}"
        yield f"  Redshift     {cluster['ClusterIdentifier']}  {cluster['ClusterStatus']}  {where}"
    for integration in rds.describe_integrations()["Integrations"]:
        yield f"  integration  {integration['IntegrationName']}  {integration['Status']}"


def _failure(rds: Any, instance: str) -> Iterator[str]:
    """What its events say of an instance that failed."""
    of_it = {"SourceIdentifier": instance, "SourceType": "db-instance", "EventCategories": ["failure"]}
    events = rds.describe_events(**of_it, Duration=14 * 24 * 60)["Events"]
    yield f"    the instance {instance} failed:"
    for line in events[-1]["Message"].splitlines() if events else ():
        yield f"      {line}"


def _create_parameter_group(rds: Any) -> None:
    rds.create_db_cluster_parameter_group(
        DBClusterParameterGroupName=PARAMETER_GROUP,
        DBParameterGroupFamily="aurora-postgresql17",
        Description="Zero-ETL source",
    )
    rds.modify_db_cluster_parameter_group(
        DBClusterParameterGroupName=PARAMETER_GROUP,
        Parameters=[
            {"ParameterName": name, "ParameterValue": value, "ApplyMethod": "pending-reboot"}
            for name, value in ZERO_ETL_PARAMETERS.items()
        ],
    )


def _create_cluster(rds: Any) -> None:
    rds.create_db_cluster(
        DBClusterIdentifier=CLUSTER,
        Engine="aurora-postgresql",
        DatabaseName=DATABASE,
        MasterUsername="tickit_admin",
        ManageMasterUserPassword=True,
        DBClusterParameterGroupName=PARAMETER_GROUP,
        ServerlessV2ScalingConfiguration={"MinCapacity": 0.5, "MaxCapacity": 8},
        StorageEncrypted=True,
    )


def _create_key(kms: Any) -> str:
    """The ARN of the key behind `KEY_ALIAS`, made where the alias is missing."""
    try:
        return str(kms.describe_key(KeyId=KEY_ALIAS)["KeyMetadata"]["Arn"])
    except ClientError as error:
        if error.response["Error"]["Code"] != "NotFoundException":
            raise
    made = kms.create_key(Description="Snapshot exports of TICKIT")["KeyMetadata"]
    kms.create_alias(AliasName=KEY_ALIAS, TargetKeyId=made["KeyId"])
    return str(made["Arn"])


def _create_role(iam: Any, name: str, service: str, statements: list[dict[str, Any]]) -> None:
    trust = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    _ignoring(
        "EntityAlreadyExists",
        lambda: iam.create_role(RoleName=name, AssumeRolePolicyDocument=_policy([trust])),
    )
    iam.put_role_policy(RoleName=name, PolicyName="tickit", PolicyDocument=_policy(statements))


def _allow(actions: list[str], resources: list[str]) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": actions, "Resource": resources}


def _policy(statements: list[dict[str, Any]]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def _wait_for_workgroup(serverless: Any) -> None:
    import time

    for _ in range(_WAIT["MaxAttempts"]):
        if serverless.get_workgroup(workgroupName=WORKGROUP)["workgroup"]["status"] == "AVAILABLE":
            return
        time.sleep(0.5)
    raise LandscapeError(f"workgroup {WORKGROUP} did not become AVAILABLE; see `zeroetl local status`")


def _ignoring(code: str, call: Callable[[], object]) -> bool:
    """False when it existed already."""
    try:
        call()
    except ClientError as error:
        if error.response["Error"]["Code"] != code:
            raise
        return False
    return True
