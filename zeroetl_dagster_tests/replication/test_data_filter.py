from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroetl_dagster.replication.data_filter import DataFilter, DataFilterError, Part, Rule, parse, same


# Aurora guide, "Data filtering for zero-ETL integrations": the guide's own examples.
@pytest.mark.parametrize(
    ("text", "names", "replicated"),
    [
        ("include: books.*, exclude: books./.*mystery.*/", ("books", "art"), True),
        ("include: books.*, exclude: books./.*mystery.*/", ("books", "my_mystery_book"), False),
        ("include: books./table_.*/, exclude: books.table_stephen_king", ("books", "table_x"), True),
        ("include: books./table_.*/, exclude: books.table_stephen_king", ("books", "table_stephen_king"), False),
        ("include: books.stephenking, exclude: books.*", ("books", "stephenking"), False),
        ("include: mydb./table_\\d+/", ("mydb", "table_12"), True),
        ("include: mydb./table_\\d+/", ("mydb", "table_x"), False),
        ("include: mdo-core-crud.167597", ("mdo-core-crud", "167597"), True),
        ("include: other.*", ("books", "art"), False),
    ],
)
def test_aws_examples_mysql(text: str, names: tuple[str, str], replicated: bool) -> None:
    assert parse(text, "mysql").includes(*names) is replicated


@pytest.mark.parametrize(
    ("text", "names", "replicated"),
    [
        ("include: books.*.*, exclude: books.*.mystery", ("books", "a", "mystery"), False),
        ("include: books.*.*, exclude: books./sci.*/.*", ("books", "scifi", "x"), False),
        ("include: books.*.*, exclude: books./sci.*/.*", ("books", "art", "x"), True),
        (
            "include: books.science_fiction.*, exclude: books.*./.*king.*/",
            ("books", "science_fiction", "a_king"),
            False,
        ),
        (
            "include: books.mystery.stephen_king, include: employee.finance.benefits",
            ("employee", "finance", "benefits"),
            True,
        ),
        ('include: books."My Schema"."T.1"', ("books", "My Schema", "T.1"), True),
    ],
)
def test_aws_examples_postgresql(text: str, names: tuple[str, str, str], replicated: bool) -> None:
    assert parse(text, "postgresql").includes(*names) is replicated


@pytest.mark.parametrize(
    ("text", "family", "position", "said"),
    [
        ("", "mysql", None, "is empty"),
        ("books.*", "mysql", 0, "expected `include:` or `exclude:`"),
        ("include: a.b, c.d", "mysql", 14, "each pattern carries its own word"),
        ("include a.b", "mysql", 8, "expected `:`"),
        ("include: a", "mysql", 9, "1 part(s); mysql takes 2: database.table"),
        ("include: a.b.c", "mysql", 9, "3 part(s)"),
        ("include: a.b", "postgresql", 9, "database.schema.table"),
        ("include: a.", "mysql", 11, "expected a name, `*` or /regex/"),
        ("include: a.b*", "mysql", 11, "write the regex /b.*/"),
        ("include: a.**", "mysql", 11, "`*` stands for a whole part"),
        ("include: a./b", "mysql", 11, "closing `/` is missing"),
        ("include: a.//", "mysql", 11, "regular expression is empty"),
        ("include: a./*b/", "mysql", 11, "is not a regular expression"),
        ('include: a."b', "mysql", 11, 'closing `"` is missing'),
        ('include: a.""', "mysql", 11, "name is empty"),
        ("include: a.b exclude: a.c", "mysql", 13, "expected `,` or the end"),
        ("include: a./x|y/", "mysql", 13, "is not allowed by the RDS API"),
        ("include: a.表", "mysql", 11, "is not allowed by the RDS API"),
        ("include: a." + "x" * 255, "mysql", 9, "at most 256"),
        ("exclude: a.b", "mysql", None, "has no include"),
        ("include: /a.*/.b.c, include: a.b.c", "postgresql", None, "regex for schema and table only"),
        ("include: *.*.*", "postgresql", None, "include: mydb.*.*"),
        (", ".join(["include: a.b"] * 100), "mysql", None, "100 patterns; at most 99"),
        ("include: a." + "x" * 25_600, "mysql", None, "at most 25600"),
    ],
)
def test_what_is_refused_says_where_and_what(text: str, family: str, position: int | None, said: str) -> None:
    with pytest.raises(DataFilterError) as caught:
        parse(text, family)  # type: ignore[arg-type]
    assert caught.value.position == position
    assert said in str(caught.value)
    if position is not None:
        assert f"at character {position + 1}" in str(caught.value)


def test_limits_are_inclusive() -> None:
    assert len(parse(", ".join(["include: a.b"] * 99), "mysql").rules) == 99
    assert parse("include: a." + "x" * 254, "mysql").rules[0].pattern == "a." + "x" * 254


def test_no_filter_is_everything_for_mysql() -> None:
    assert same(None, "include: *.*", "mysql")
    assert same("include:*.*", " include : *.* ", "mysql")
    assert not same(None, "include: a.*", "mysql")


def test_order_is_part_of_a_filter() -> None:
    assert not same("include: a.*, exclude: a.b", "exclude: a.b, include: a.*", "mysql")


def test_a_filter_that_cannot_be_parsed_equals_only_itself() -> None:
    assert same("include: (x)", "include: (x)", "mysql")
    assert not same("include: (x)", "include: x.y", "mysql")


def test_warns_when_a_later_pattern_voids_an_earlier() -> None:
    (warning,) = parse("include: books.stephenking, include: art.*, exclude: books.*", "mysql").warnings()
    assert "`include: books.stephenking` has no effect" in warning and "`exclude: books.*`" in warning
    (redundant,) = parse("include: a.b, include: a./b.*/", "mysql").warnings()
    assert "redundant" in redundant
    assert parse("include: a.*, exclude: a.b", "mysql").warnings() == []


def test_whether_a_database_is_reached() -> None:
    assert parse("include: a.*.*", "postgresql").includes_database("a")
    assert not parse("include: a.*.*", "postgresql").includes_database("b")
    assert not parse("include: a.x.y, exclude: a.*.*, include: b.*.*", "postgresql").includes_database("a")


_names = st.text("abc", min_size=1, max_size=3)
_parts = st.one_of(
    st.just(Part("any")),
    _names.map(lambda text: Part("literal", text)),
    st.sampled_from(["A b", "x.y", "a,b"]).map(lambda text: Part("literal", text)),
    st.sampled_from(["a.*", ".*", "b+", ".*c", "a,.*", "a?b"]).map(lambda text: Part("regex", text)),
)
_rules = st.builds(Rule, st.booleans(), st.tuples(_parts, _parts))
_filters = st.lists(_rules, min_size=1, max_size=6).map(lambda rules: DataFilter("mysql", tuple(rules)))


@given(_filters)
def test_format_and_parse_are_inverse(one: DataFilter) -> None:
    if any(rule.include for rule in one.rules):
        assert parse(str(one), "mysql") == one
    assert same(str(one), str(one).replace(", ", " ,  "), "mysql") or "," in "".join(
        p.text for r in one.rules for p in r.parts
    )


@given(_filters, _names, _names)
def test_the_last_matching_rule_decides(one: DataFilter, database: str, table: str) -> None:
    decisions = [rule.include for rule in one.rules if rule.matches((database, table))]
    assert one.includes(database, table) is (decisions[-1] if decisions else False)


@given(_filters, _names, _names)
def test_a_rule_warned_of_can_be_left_out(one: DataFilter, database: str, table: str) -> None:
    rules = one.rules
    kept = tuple(r for i, r in enumerate(rules) if not any(later.covers(r) for later in rules[i + 1 :]))
    assert len(kept) == len(rules) - len(one.warnings())
    assert DataFilter("mysql", kept).includes(database, table) is one.includes(database, table)
