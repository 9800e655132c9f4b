"""Reading a mart's file."""

from __future__ import annotations

from pathlib import Path

import pytest

from zeroetl_dagster.marts.model import MartError, parse_model, read_models

PATH = Path("marts/sales.sql")


def test_options_and_sql_are_told_apart() -> None:
    model = parse_model(
        PATH,
        "-- description: Tickets sold\n--   of each event: all of them.\n-- materialized: table\n"
        "-- minimum_interval_seconds: 60\n-- owners: team:sales, a@b.example\n-- tags: domain=sales\n"
        "-- sortkey: year, week\n\n-- free comment: ignored\nSELECT 1 AS one\n",
    )
    options = model.options
    assert model.name == "sales"
    assert options.description == "Tickets sold of each event: all of them."
    assert (options.materialized, options.minimum_interval_seconds) == ("table", 60)
    assert options.owners == ("team:sales", "a@b.example")
    assert options.tags == {"domain": "sales"}
    assert options.sortkey == ("year", "week")
    assert model.sql == "-- free comment: ignored\nSELECT 1 AS one"
    assert model.where(2) == "marts/sales.sql:10"


def test_a_file_needs_no_options() -> None:
    model = parse_model(PATH, "select 1 as one")
    assert (model.sql, model.sql_line, model.options.materialized) == ("select 1 as one", 1, None)


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert parse_model(PATH, "\ufeff-- materialized: view\nselect 1 as one").options.materialized == "view"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "-- materialized: materialised_view\nselect 1",
            "marts/sales.sql:1: materialized: found 'materialised_view', "
            "allowed: 'materialized_view', 'table', 'view' or 'partitioned'",
        ),
        (
            "-- materialised: table\nselect 1",
            "marts/sales.sql:1: unknown option `materialised`; did you mean `materialized`?",
        ),
        ("-- x\nselect 1", "marts/sales.sql:1: found '-- x' among the options; allowed are `-- key: value`"),
        ("--   more\nselect 1", "found '--   more' among the options"),
        ("-- group: a\n-- group: b\nselect 1", "marts/sales.sql:2: group is given twice, first on line 1"),
        ("-- minimum_interval_seconds: often\nselect 1", "sales.sql:1: minimum_interval_seconds: found 'often'"),
        ("-- minimum_interval_seconds: -1\nselect 1", "greater than or equal to 0"),
        ("-- owners: bob\nselect 1", "'bob' is neither `team:name` nor an e-mail address"),
        ("-- tags: sales\nselect 1", "write tags as `key=value, key=value`"),
        ("-- tags: a=b c\nselect 1", "the value of 'a' is 'b c'; it may hold letters, digits"),
        ("-- tags: dagster/x=y\nselect 1", "are reserved"),
        ("-- diststyle: key\nselect 1", "sales.sql:1: diststyle: found 'key': diststyle key needs `distkey`"),
        ("-- group: a\n-- distkey: b\n-- diststyle: all\nselect 1", "sales.sql:2: distkey"),
        ("-- group: a\n", "marts/sales.sql:1: no SQL after the options"),
        ("", "marts/sales.sql:1: no SQL after the options"),
    ],
)
def test_a_fault_is_named_with_its_line(text: str, message: str) -> None:
    with pytest.raises(MartError) as caught:
        parse_model(PATH, text)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["Sales", "1st", "ma-rt", "größe", "x" * 121])
def test_a_file_name_must_be_able_to_name_a_mart(name: str) -> None:
    with pytest.raises(MartError, match="cannot name a mart: lower-case letters, digits and _ only"):
        parse_model(Path(f"{name}.sql"), "select 1 as one")


def test_models_are_read_in_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.sql").write_text("select 1 as one")
    (tmp_path / "notes.md").write_text("no mart")
    assert [model.name for model in read_models(tmp_path)] == ["a", "b"]


def test_a_folder_without_marts_says_what_belongs_there(tmp_path: Path) -> None:
    with pytest.raises(MartError, match="no .sql file; a mart is one file, named like the mart"):
        read_models(tmp_path)
    with pytest.raises(MartError, match="there is no such folder"):
        read_models(tmp_path / "absent")
