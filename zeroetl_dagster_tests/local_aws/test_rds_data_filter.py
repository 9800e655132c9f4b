from __future__ import annotations

import pytest

from zeroetl_dagster.local.aws.errors import AwsError
from zeroetl_dagster.local.aws.rds_data_filter import accepted

MYSQL, POSTGRESQL = "aurora-mysql", "aurora-postgresql"


@pytest.mark.parametrize(
    ("engine", "data_filter"),
    [  # the examples of the Aurora guide
        (MYSQL, "include: books.*, exclude: books./.*mystery.*/"),
        (MYSQL, "include: books./table_.*/, exclude: books.table_stephen_king"),
        (MYSQL, r"include: mydb./table_\d+/"),
        (MYSQL, "include: mdo-core-crud.167597"),
        (MYSQL, "include: *.*"),
        (POSTGRESQL, "include: books.*.*, exclude: books.*.mystery"),
        (POSTGRESQL, "include: books.*.*, exclude: books./sci.*/.*"),
        (POSTGRESQL, "include: books.science_fiction.*, exclude: books.*./.*king.*/"),
        (POSTGRESQL, "include: books.mystery.stephen_king, include: employee.finance.benefits"),
        (POSTGRESQL, 'include: books."odd.name".*'),
        (POSTGRESQL, r"include: books./a\/b/.*"),
    ],
)
def test_accepted(engine: str, data_filter: str) -> None:
    assert accepted(data_filter, engine) == data_filter


def test_mysql_without_a_filter_replicates_everything() -> None:
    assert accepted(None, MYSQL) == "include: *.*"


def test_the_limits() -> None:
    accepted(", ".join(["include: a.b.c"] * 99), POSTGRESQL)
    accepted("include: a.b." + "c" * 252, POSTGRESQL)


@pytest.mark.parametrize(
    ("engine", "data_filter", "said"),
    [
        (POSTGRESQL, None, "must contain at least one include statement"),
        (POSTGRESQL, "exclude: a.b.c", "must contain at least one include statement"),
        (MYSQL, "exclude: a.b", "must contain at least one include statement"),
        (MYSQL, "books.*", "not of the form include: PATTERN"),
        (MYSQL, "only: books.*", "not of the form include: PATTERN"),
        (MYSQL, "include:", "not of the form include: PATTERN"),
        (MYSQL, "include: a.b.c", "must have the form database.table"),
        (POSTGRESQL, "include: a.b", "must have the form database.schema.table"),
        (POSTGRESQL, "include: a..b", "has an empty part"),
        (POSTGRESQL, 'include: "a"b.c.d', "without a dot"),
        (POSTGRESQL, "include: *.b.c", "must name one database"),
        (POSTGRESQL, "include: /a.*/.b.c", "must name one database"),
        (POSTGRESQL, "include: a.b.tab*", "neither a name, nor *"),
        (MYSQL, "include: a./x", "does not end in a slash"),
        (MYSQL, "include: a./*x/", "cannot be parsed"),
        (POSTGRESQL, ", ".join(["include: a.b.c"] * 100), "it has 100 patterns, at most 99"),
        (POSTGRESQL, "include: a.b." + "c" * 253, "a pattern has 257 characters, at most 256"),
    ],
)
def test_refused(engine: str, data_filter: str | None, said: str) -> None:
    with pytest.raises(AwsError) as caught:
        accepted(data_filter, engine)
    assert said in caught.value.message and caught.value.code == "InvalidParameterValue"
