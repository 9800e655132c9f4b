"""Links into the AWS console, so that a person goes from an event to the thing in one click."""

from __future__ import annotations

from urllib.parse import quote


def s3_folder(region: str, uri: str) -> str:
    """The S3 console at `s3://bucket/prefix/`."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    return f"https://{region}.console.aws.amazon.com/s3/buckets/{bucket}?region={region}&prefix={quote(prefix)}"


def database(region: str, identifier: str, *, cluster: bool) -> str:
    """The RDS console's page of a cluster or instance."""
    kind = "true" if cluster else "false"
    return (
        f"https://{region}.console.aws.amazon.com/rds/home?region={region}#database:id={identifier};is-cluster={kind}"
    )


def glue_table(region: str, database: str, table: str) -> str:
    """The Glue console's page of a table."""
    return (
        f"https://{region}.console.aws.amazon.com/glue/home?region={region}"
        f"#/v2/data-catalog/tables/view/{quote(table)}?database={quote(database)}"
    )


def crawler(region: str, name: str) -> str:
    """The Glue console's page of a crawler."""
    return f"https://{region}.console.aws.amazon.com/glue/home?region={region}#/v2/data-catalog/crawlers/view/{quote(name)}"
