"""From the SQL as written to the SQL that runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from zeroetl_dagster.marts.compile import ColumnRef, CompiledMart, TableRef, Target, compile_marts, for_source
from zeroetl_dagster.marts.model import MartError, parse_model

TARGET = Target("tickit_marts", "marts", {"tickit": "tickit_zetl", "Orders": "orders-db"}, materialized="table")
SALES = TableRef("tickit", "public", "sales")


def marts(target: Target = TARGET, **texts: str) -> dict[str, CompiledMart]:
    return compile_marts([parse_model(Path(f"{name}.sql"), text) for name, text in texts.items()], target)


def one(text: str) -> CompiledMart:
    return marts(mart=text)["mart"]


def error(**texts: str) -> str:
    with pytest.raises(MartError) as caught:
        marts(TARGET, **texts)
    return str(caught.value)


def test_only_the_pipelines_name_gives_way() -> None:
    mart = one("select  s.qtysold as n -- kept, as the double blank is\nfrom tickit.public.sales s;\n")
    assert mart.sql == 'select  s.qtysold as n -- kept, as the double blank is\nfrom "tickit_zetl".public.sales s'
    assert mart.tables == (SALES,)


def test_every_place_that_reads_is_found() -> None:
    mart = one(
        "with a as (select * from tickit.public.sales), b as (select a.x from a union all select x from tickit.p.u) "
        "select b.x, (select max(e.y) from tickit.p.e e where e.id = b.x) as y from b "
        "where exists (select 1 from tickit.p.l l where l.x = b.x)"
    )
    assert [t.table for t in mart.tables] == ["e", "l", "u", "sales"]
    assert mart.sql.count('"tickit_zetl".') == 4 and mart.columns == ("x", "y")


def test_a_cte_is_no_mart_even_with_a_marts_name() -> None:
    found = marts(a="with b as (select 1 as x) select x from b", b="select 2 as y")
    assert found["a"].marts == ()


def test_names_of_one_and_two_parts_are_marts_of_the_component() -> None:
    found = marts(
        a="select s.qtysold as n from tickit.public.sales s",
        b="select n from a",
        c="select n from marts.a union all select b.n from tickit_marts.b",
    )
    assert found["b"].sql == 'select n from "marts"."a"'
    assert found["c"].sql == 'select n from "marts"."a" union all select b.n from "marts"."b"'
    assert found["c"].marts == ("a", "b")
    assert list(found) == ["a", "b", "c"]


def test_a_mart_comes_after_those_it_reads() -> None:
    assert list(marts(a="select x from z", z="select 1 as x")) == ["z", "a"]


def test_identifiers_keep_quotes_dots_case_and_other_letters() -> None:
    mart = one('select o."Größe ""x""" as "Ä.b", u.ÜBER as u from orders."My.Schema"."Order ""Lines""" o, tickit.P.Ü u')
    assert mart.tables == (
        TableRef("Orders", "My.Schema", 'Order "Lines"'),
        TableRef("tickit", "p", "Ü"),
    )
    assert mart.sql == (
        'select o."Größe ""x""" as "Ä.b", u.ÜBER as u from "orders-db"."My.Schema"."Order ""Lines""" o, '
        '"tickit_zetl".P.Ü u'
    )
    assert mart.columns == ("Ä.b", "u")


def test_a_column_may_be_written_with_its_whole_name() -> None:
    mart = one("select tickit.public.sales.qtysold as n from tickit.public.sales")
    assert mart.sql == 'select "tickit_zetl".public.sales.qtysold as n from "tickit_zetl".public.sales'


def test_a_super_column_is_unnested_and_a_table_function_is_no_table() -> None:
    mart = one("select i.sku as sku from tickit.public.sales s, s.items i, generate_series(1, 2) g")
    assert mart.tables == (SALES,)


def test_a_table_called_like_a_type_is_a_table() -> None:
    assert one("select d.week as week from tickit.public.date d").tables == (TableRef("tickit", "public", "date"),)


def test_a_star_is_taken_where_its_columns_are_listed_further_in() -> None:
    mart = one("with a as (select s.x, s.y as z from tickit.public.sales s) select a.* from (select * from a) a")
    assert mart.columns == ("x", "z")


def test_a_query_in_parentheses_is_the_query() -> None:
    assert one("((select 1 as x) union all select 2 as y) order by 1").columns == ("x",)
    assert one("(select 1 as x);").sql == "(select 1 as x)"


def test_the_code_version_is_of_what_decides_the_content() -> None:
    text = "select s.x as x from tickit.public.sales s"
    version = one(text).code_version
    respaced = "-- description: other\n\n/* c */ select s.x as x  -- c\n  from tickit.public.sales s"
    assert one(respaced).code_version == version
    others = [
        text.replace("s.x as", "s.y as"),
        text.replace("as x", "as X").replace("s.x", "'s.x'"),
        f"-- materialized: view\n{text}",
        f"-- sortkey: x\n{text}",
        f"-- distkey: x\n{text}",
    ]
    assert version not in {one(other).code_version for other in others}
    moved = Target("tickit_marts", "marts", {"tickit": "elsewhere"}, materialized="table")
    assert marts(moved, mart=text)["mart"].code_version != version


def test_column_lineage_goes_to_tables_and_marts() -> None:
    found = marts(
        a="select s.eventid, sum(s.pricepaid) as revenue, count(*) as n from tickit.public.sales s group by 1",
        b="with top as (select a.eventid, a.revenue from a) select e.eventname, top.revenue / 2 as half "
        "from top join tickit.public.event e on e.eventid = top.eventid",
    )
    assert found["a"].lineage == {
        "eventid": (ColumnRef(SALES, "eventid"),),
        "revenue": (ColumnRef(SALES, "pricepaid"),),
    }
    assert found["b"].lineage == {
        "eventname": (ColumnRef(TableRef("tickit", "public", "event"), "eventname"),),
        "half": (ColumnRef("a", "revenue"),),
    }


def test_a_mart_that_reads_the_clock_says_so() -> None:
    assert "Reads the clock" in one("select getdate() as now").notes[0]
    assert not one("select s.x as x from tickit.public.sales s").notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\nselect a from\n", "mart.sql:2: SQL not understood at column 13, near 'from': Expected table name"),
        ("select a b c from t", "mart.sql:1: SQL not understood at column 12, near 'c'"),
        ("select 'x", "mart.sql:1: SQL not understood: Error tokenizing"),
        ("select 1 as x; select 2 as y", "mart.sql:1: found 2 statements; a mart is one SELECT"),
        ("update x set a = 1", "mart.sql:1: found UPDATE; a mart is one SELECT"),
        (
            "select 1 as x\nfrom tikcit.public.sales",
            "mart.sql:2: 'tikcit' is no pipeline of this component; did you mean 'tickit'? (pipelines: Orders, tickit;",
        ),
        (
            "select 1 as x from tickit_zetl.public.sales",
            "that is the database of the pipeline tickit: write the pipeline's",
        ),
        ("select 1 as x from public.sales", "public.sales has two parts, but 'public' is neither this component"),
        (
            "select 1 as x from sales",
            "there is no mart 'sales'; write a replicated table in three parts, `pipeline.schema.sales`",
        ),
        ("select 1 as x from mart", "mart is this mart itself"),
        ("select * from tickit.public.sales s", "the result takes * from s; list its columns"),
        ("with a as (select b.* from tickit.p.b b) select * from a", "the result takes * from b"),
        ("select sum(s.x) from tickit.public.sales s", "column 1 of the result has no name; give it one with AS"),
        ("select s.x, t.x from tickit.p.s s, tickit.p.t t", "two columns are called 'x'"),
    ],
)
def test_a_fault_is_named_with_its_line(text: str, message: str) -> None:
    assert message in error(mart=text)


def test_a_mistyped_mart_finds_the_nearest() -> None:
    assert "there is no mart 'best_venus'; did you mean 'best_venues'?" in error(
        best_venues="select 1 as x", mart="select x from best_venus"
    )


def test_marts_in_a_circle_are_named() -> None:
    text = error(a="select x from b", b="select x from c", c="select x from a")
    assert "the marts read each other in a circle: " in text
    assert any(f"{x} reads {y} reads {z} reads {x}" in text for x, y, z in ("abc", "bca", "cab"))


@pytest.mark.parametrize(("clause", "word"), [("order by 1", "ORDER BY"), ("limit 5", "LIMIT"), ("offset 5", "OFFSET")])
def test_what_a_materialized_view_may_not_hold_is_refused(clause: str, word: str) -> None:
    head = "-- materialized: materialized_view\n"
    assert f"Redshift allows no {word} in a materialized view" in error(
        mart=f"{head}select s.x as x from tickit.p.s s {clause}"
    )
    assert one(f"select s.x as x from tickit.p.s s {clause}").materialized == "table"


@pytest.mark.parametrize("kind", ["table", "view"])
def test_a_materialized_view_reads_no_mart_that_is_replaced_or_bound_late(kind: str) -> None:
    text = error(a=f"-- materialized: {kind}\nselect 1 as x", b="-- materialized: materialized_view\nselect x from a")
    assert (
        f"b.sql:2: a materialized view cannot read a, which is a {'(late-binding) ' * (kind == 'view')}{kind}" in text
    )


def test_for_the_source_marts_become_ctes() -> None:
    found = marts(
        a="select s.eventid, nvl(sum(s.x), 0)::float as x from tickit.public.sales s group by 1",
        b="with a2 as (select * from a) select a2.x, tickit.public.event.name as name from a2, tickit.public.event "
        "order by 1",
    )
    assert for_source("a", found) == (
        "SELECT\n  s.eventid,\n  CAST(COALESCE(SUM(s.x), 0) AS DOUBLE PRECISION) AS x\n"
        "FROM public.sales AS s\nGROUP BY\n  1"
    )
    sql = for_source("b", found)
    assert sql.startswith('WITH "a" AS (\nSELECT') and sql.endswith(') AS "b"')
    assert "FROM a\n" in sql and "public.event.name" in sql and "tickit" not in sql


def test_only_a_mart_of_one_pipeline_can_be_asked_of_its_source() -> None:
    found = marts(mart="select s.x as x from tickit.p.s s, orders.p.o o")
    with pytest.raises(MartError, match="reads Orders and tickit; only a mart of one pipeline"):
        for_source("mart", found)
