"""Which statements are printed for whom; that they are enough is shown on the embedded Redshift."""

from __future__ import annotations

import pytest

from zeroetl_dagster.connections.grants import Identities, MartsSchema, iam_user, script, steps

MARTS = MartsSchema("dev", "shop_marts", ('ROLE "analyst"',))


def lines(identities: Identities, databases: tuple[str, ...] = (), schemas: tuple[MartsSchema, ...] = ()) -> list[str]:
    return list(script("Rights.", identities, steps(identities, databases, schemas)))


def statements(printed: list[str]) -> list[str]:
    return [line for line in printed if line and not line.startswith("--")]


def test_each_identity_gets_what_it_needs_and_no_more() -> None:
    assert statements(lines(Identities(admin="ann"))) == ['ALTER USER "ann" CREATEDB CREATEUSER;']
    assert statements(lines(Identities(watch="eye"), ("zetl",), (MARTS,))) == ['GRANT ROLE sys:monitor TO "eye";']
    assert statements(lines(Identities(marts="m"), ("zetl",), (MARTS,))) == [
        'CREATE SCHEMA IF NOT EXISTS "shop_marts";',
        'GRANT USAGE, CREATE ON SCHEMA "shop_marts" TO "m";',
        'GRANT USAGE ON SCHEMA "shop_marts" TO ROLE "analyst";',
        'GRANT USAGE FOR SCHEMAS IN DATABASE "zetl" TO "m";',
        'GRANT SELECT FOR TABLES IN DATABASE "zetl" TO "m";',
    ]


def test_two_pipelines_and_marts_of_one_place_are_said_once() -> None:
    printed = statements(lines(Identities(marts="m"), ("one", "two", "one"), (MARTS, MARTS)))
    assert len(printed) == len(set(printed)) == 7


def test_every_step_says_where_to_be_connected() -> None:
    found = {step.database for step in steps(Identities(watch="w", marts="m"), ("zetl",), (MARTS,))}
    assert found == {None, "dev", "zetl"}
    assert '-- Connected to "zetl". Marts: reads every replicated table, those that appear later too.' in lines(
        Identities(marts="m"), ("zetl",)
    )


def test_a_user_of_iam_can_be_made_before_its_first_login() -> None:
    printed = lines(Identities(watch="IAMR:dagster", marts="IAMR:dagster"), ("zetl",))
    assert [line for line in printed if "CREATE USER" in line] == [
        '-- IAMR:dagster appears with its first login. To grant before: CREATE USER "IAMR:dagster" PASSWORD DISABLE;'
    ]


@pytest.mark.parametrize(
    ("identities", "said"),
    [
        (Identities(), "-- Nothing to grant: watch and marts are the admin itself, a superuser."),
        (Identities(marts="m"), "-- Nothing to grant: no pipeline and no marts use it."),
    ],
)
def test_nothing_to_grant_is_said(identities: Identities, said: str) -> None:
    assert lines(identities) == ["-- Rights.", said]


def test_a_name_with_a_line_break_cannot_leave_its_comment() -> None:
    printed = lines(Identities(watch="IAM:x\nDROP DATABASE dev; --"))
    assert [line for line in "\n".join(printed).splitlines() if line.startswith("DROP")] == ['DROP DATABASE dev; --";']
    # …which is the inside of the one delimited identifier that names the user:
    assert 'GRANT ROLE sys:monitor TO "IAM:x\nDROP DATABASE dev; --";' in printed


@pytest.mark.parametrize(
    ("given", "user"),
    [
        ("role/dagster", "IAMR:dagster"),
        ("user/ann", "IAM:ann"),
        ("arn:aws:iam::123456789012:role/service/dagster", "IAMR:dagster"),
        ("arn:aws-cn:iam::123456789012:user/ann@example.com", "IAM:ann@example.com"),
        ("arn:aws:sts::123456789012:assumed-role/dagster/run-7", "IAMR:dagster"),
        ("IAMR:dagster", "IAMR:dagster"),
        ("IAM:ann", "IAM:ann"),
    ],
)
def test_the_database_user_of_an_iam_identity(given: str, user: str) -> None:
    assert iam_user(given) == user


@pytest.mark.parametrize("given", ["dagster", "group/x", "arn:aws:s3:::bucket", "role/", "role/a b"])
def test_what_is_no_iam_identity_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="names no IAM identity; allowed: role/NAME, user/NAME"):
        iam_user(given)
