"""From the SQL as it is written to the SQL that runs: names replaced, dependencies and column lineage read.

The first part of a three-part name is the name of a pipeline; it gives way to that pipeline's database. A name of one
or two parts is a mart of the same component. Only those words change: the rest of the text runs as it was written
(sqlglot reads it, but does not rewrite it). `for_source` is the exception, as it translates to another engine.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError
from typing import Literal, get_args

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, SqlglotError, TokenError
from sqlglot.optimizer.scope import Scope, build_scope, traverse_scope

from zeroetl_dagster.connections.sql import identifier, qualified
from zeroetl_dagster.marts.due import in_order
from zeroetl_dagster.marts.model import MartError, Model
from zeroetl_dagster.settings.asset_keys import asset_key_part
from zeroetl_dagster.settings.marts import AthenaMaterialization, Materialization, RedshiftMaterialization

Dialect = Literal["redshift", "athena"]

# Their value changes with the clock: a mart that uses one is refreshed when data moves, not when time passes.
_CLOCK = (exp.CurrentDate, exp.CurrentTime, exp.CurrentTimestamp, exp.CurrentDatetime)
_MATERIALIZED: dict[Dialect, tuple[str, ...]] = {
    "redshift": get_args(RedshiftMaterialization),
    "athena": get_args(AthenaMaterialization),
}
_CLOCK_NAMES = {"getdate", "sysdate", "now", "timeofday", "localtimestamp", "localtime"}


@dataclass(frozen=True, order=True)
class TableRef:
    """A replicated (or otherwise loaded) table, as its asset key: `(pipeline, schema, table)`."""

    pipeline: str
    schema: str
    table: str

    @property
    def key(self) -> tuple[str, ...]:
        """The asset key's parts."""
        return (self.pipeline, asset_key_part(self.schema), asset_key_part(self.table))


@dataclass(frozen=True)
class ColumnRef:
    """A column that a mart's column is made from: of a table, or of another mart (by name)."""

    relation: TableRef | str
    column: str


@dataclass(frozen=True)
class Target:
    """Where names lead: the component's own name and schema, and the database of each pipeline.

    `relation` says where a table is that does not keep its schema and name there (the views of an export's tables); it
    then stands for the whole three-part name.
    """

    name: str
    schema: str
    databases: Mapping[str, str]
    dialect: Dialect = "redshift"
    materialized: Materialization = "materialized_view"
    relation: Callable[[TableRef], tuple[str, ...]] | None = None


@dataclass(frozen=True)
class CompiledMart:
    """A mart ready to be materialised. `sql` is one SELECT without a semicolon."""

    model: Model
    target: Target
    materialized: Materialization
    sql: str
    tables: tuple[TableRef, ...]
    marts: tuple[str, ...]
    columns: tuple[str, ...]
    code_version: str
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.model.name

    @cached_property
    def lineage(self) -> Mapping[str, tuple[ColumnRef, ...]]:
        """Of each column the columns it is made from, as far as the SQL alone tells.

        A column that is written without its table while several are joined cannot be placed, and is left out.
        """
        return _lineage(self)


def compile_marts(models: Iterable[Model], target: Target) -> dict[str, CompiledMart]:
    """Every mart by name, each after the marts it reads. Raises `MartError` for the first fault found."""
    by_name = {model.name: model for model in models}
    compiled = {name: _compile(model, by_name, target) for name, model in by_name.items()}
    try:
        order = tuple(in_order({name: mart.marts for name, mart in compiled.items()}))
    except CycleError as error:
        circle = list(reversed(error.args[1]))
        raise MartError(
            f"{compiled[circle[0]].model.path}: the marts read each other in a circle: {' reads '.join(circle)}"
        ) from None
    for mart in compiled.values():
        _refuse_what_redshift_refuses(mart, compiled)
    return {name: compiled[name] for name in order}


def for_source(name: str, compiled: Mapping[str, CompiledMart]) -> str:
    """The same question as PostgreSQL SQL for the source database: `schema.table`, other marts as CTEs.

    What the mart answers from replicated tables, this answers from the tables themselves. Redshift's functions are
    translated where sqlglot knows how. All tables must belong to one pipeline.
    """
    needed = _with_ancestors(name, compiled)
    pipelines = {table.pipeline for other in needed for table in compiled[other].tables}
    if len(pipelines) > 1:
        raise MartError(
            f"{compiled[name].model.path}: reads {' and '.join(sorted(pipelines))}; only a mart of one pipeline can be "
            "asked of its source"
        )
    *before, last = [(other, _on_source(compiled[other])) for other in needed]
    if not before:
        return last[1]
    ctes = ",\n".join(f"{identifier(other)} AS (\n{sql}\n)" for other, sql in before)
    return f"WITH {ctes}\nSELECT * FROM (\n{last[1]}\n) AS {identifier(name)}"


def _compile(model: Model, models: Mapping[str, Model], target: Target) -> CompiledMart:
    tree = parse(model, target.dialect)
    edits: list[tuple[int, int, str]] = []
    tables: set[TableRef] = set()
    marts: set[str] = set()
    for node in _relations(tree):
        found = _resolve(node, model, models, target)
        if isinstance(found, TableRef):
            tables.add(found)
            edits.append(_edit(node, found, target))
        else:
            marts.add(found)
            edits.append((*_span(_parts(node)), qualified(target.schema, found)))
    edits += [edit for column in tree.find_all(exp.Column) for edit in _column_edits(column, model, target)]
    sql = model.sql
    for start, end, text in sorted(set(edits), reverse=True):
        sql = sql[:start] + text + sql[end:]
    sql = sql.rstrip().removesuffix(";").rstrip()
    materialized = model.options.materialized or target.materialized
    _refuse_what_the_engine_has_not(model, materialized, target.dialect)
    return CompiledMart(
        model=model,
        target=target,
        materialized=materialized,
        sql=sql,
        tables=tuple(sorted(tables)),
        marts=tuple(sorted(marts)),
        columns=_output_columns(tree, model),
        code_version=_code_version(sql, materialized, model, target.dialect),
        notes=_notes(tree),
    )


def _edit(node: exp.Table, found: TableRef, target: Target) -> tuple[int, int, str]:
    parts = _parts(node)
    if target.relation is None:
        return (*_span(parts[:1]), identifier(target.databases[found.pipeline]))
    # Columns are qualified by the name as written, which the relation no longer has.
    alias = "" if node.alias else f" AS {identifier(found.table)}"
    return (*_span(parts), qualified(*target.relation(found)) + alias)


def _column_edits(column: exp.Column, model: Model, target: Target) -> Iterator[tuple[int, int, str]]:
    """A column may be written with its table's whole name."""
    catalog, schema, table = (column.args.get(part) for part in ("catalog", "db", "table"))
    if catalog is None:
        return
    pipeline = _pipeline(catalog, model, target)
    if target.relation is None:
        yield (*_span([catalog]), identifier(target.databases[pipeline]))
    elif schema is not None and table is not None:
        yield (*_span([catalog, schema, table]), identifier(fold(table)))


def parse(model: Model, dialect: Dialect) -> exp.Query:
    """The one query that the model holds. Raises `MartError` with line and column."""
    try:
        statements = [one for one in sqlglot.parse(model.sql, dialect=dialect) if one is not None]
    except ParseError as error:
        first = error.errors[0]
        found = str(first["highlight"] or "the end of the text")
        raise MartError(
            f"{model.where(int(first['line']))}: SQL not understood at column {first['col']}, near {found!r}: "
            f"{str(first['description']).split(' <Token')[0]}"
        ) from None
    except TokenError as error:
        raise MartError(f"{model.where()}: SQL not understood: {str(error).splitlines()[0]}") from None
    if len(statements) != 1:
        raise MartError(f"{model.where()}: found {len(statements)} statements; a mart is one SELECT")
    if not isinstance(statements[0], exp.Query):
        raise MartError(
            f"{model.where()}: found {statements[0].key.upper()}; a mart is one SELECT (how it is stored is said by "
            "`-- materialized:` at the head of the file)"
        )
    return statements[0]


def _relations(tree: exp.Query) -> Iterator[exp.Table]:
    """The tables that are read: not CTEs, not table functions, not the parts of a SUPER column that are unnested."""
    seen: set[int] = set()
    for scope in traverse_scope(tree):
        for source in scope.sources.values():
            if isinstance(source, exp.Table) and isinstance(source.this, exp.Identifier) and id(source) not in seen:
                seen.add(id(source))
                yield source


def _resolve(node: exp.Table, model: Model, models: Mapping[str, Model], target: Target) -> TableRef | str:
    parts = _parts(node)
    where = model.where(parts[0].meta.get("line", 1))
    written = ".".join(part.sql(dialect=target.dialect) for part in parts)
    if len(parts) == 3:
        pipeline = _pipeline(parts[0], model, target)
        return TableRef(pipeline, fold(parts[1]), fold(parts[2]))
    own = {target.name, target.schema}
    if len(parts) == 2 and fold(parts[0]) not in own:
        raise MartError(
            f"{where}: {written} has two parts, but {fold(parts[0])!r} is neither this component ({target.name}) nor "
            f"its schema ({target.schema}); write a replicated table in three parts: `pipeline.schema.table` "
            f"(pipelines: {', '.join(sorted(target.databases))})"
        )
    name = fold(parts[-1])
    if name == model.name:
        raise MartError(f"{where}: {written} is this mart itself; a mart cannot read itself")
    if name in models:
        return name
    raise MartError(
        f"{where}: there is no mart {name!r}{_nearest(name, models)}; write a replicated table in three parts, "
        f"`pipeline.schema.{name}` (pipelines: {', '.join(sorted(target.databases))})"
    )


def _pipeline(part: exp.Identifier, model: Model, target: Target) -> str:
    """The pipeline named by the first part of a three-part name: as written, or else in any case if unquoted."""
    if part.name in target.databases:
        return part.name
    if not part.quoted:
        same = [name for name in target.databases if name.lower() == part.name.lower()]
        if len(same) == 1:
            return same[0]
    hint = ""
    if pipeline := next((p for p, database in target.databases.items() if database == fold(part)), None):
        hint = f"; that is the database of the pipeline {pipeline}: write the pipeline's name"
    raise MartError(
        f"{model.where(part.meta.get('line', 1))}: {part.name!r} is no pipeline of this component"
        f"{hint or _nearest(part.name, target.databases)} (pipelines: {', '.join(sorted(target.databases))}; add one "
        f"as `pipelines: {{{part.name}: its_database}}`)"
    )


def fold(part: exp.Identifier) -> str:
    """The name that an identifier stands for: unquoted ASCII letters fold to lower case (Redshift SQL reference,
    "Names and identifiers"); PostgreSQL folds no others either."""
    if part.quoted:
        return str(part.name)
    return "".join(c.lower() if c.isascii() else c for c in part.name)


def _nearest(name: str, among: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(among), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def _parts(node: exp.Table) -> list[exp.Identifier]:
    return [part for part in node.parts if isinstance(part, exp.Identifier)]


def _span(parts: list[exp.Identifier]) -> tuple[int, int]:
    return int(parts[0].meta["start"]), int(parts[-1].meta["end"]) + 1


def _output_columns(tree: exp.Query, model: Model) -> tuple[str, ...]:
    """The names of the result's columns. Raises `MartError` for a star over a table, a nameless or a double column."""
    scope = build_scope(tree.unnest())  # a query in parentheses is the query
    columns = tuple(_columns_of(scope, model)) if scope else ()
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise MartError(f"{model.where()}: two columns are called {twice[0]!r}; name one of them with AS")
    return columns


def _columns_of(scope: Scope, model: Model) -> Iterator[str]:
    expression = scope.expression
    if isinstance(expression, exp.SetOperation):
        yield from _columns_of(scope.set_operation_scopes[0], model)
        return
    for at, projection in enumerate(expression.expressions, start=1):
        if projection.is_star:
            yield from _starred(projection, scope, model)
        elif name := projection.output_name:
            alias = projection.args.get("alias")
            yield fold(alias) if isinstance(alias, exp.Identifier) else name
        else:
            raise MartError(f"{model.where()}: column {at} of the result has no name; give it one with AS")


def _starred(projection: exp.Expression, scope: Scope, model: Model) -> Iterator[str]:
    table = projection.table if isinstance(projection, exp.Column) else ""
    names = [table] if table else list(scope.selected_sources)
    for name in names:
        source = scope.sources.get(name)
        if not isinstance(source, Scope):
            raise MartError(
                f"{model.where()}: the result takes * from {name}; list its columns, because a new column at the "
                "source would change the mart, and Redshift adds txn_seq and txn_id of its own"
            )
        yield from _columns_of(source, model)


def _notes(tree: exp.Query) -> tuple[str, ...]:
    clock = any(
        isinstance(node, _CLOCK) or (isinstance(node, exp.Anonymous) and node.name.lower() in _CLOCK_NAMES)
        for node in tree.walk()
    )
    if not clock:
        return ()
    return ("Reads the clock, but is refreshed when its data moves, not when time passes.",)


def _code_version(sql: str, materialized: str, model: Model, dialect: Dialect) -> str:
    """A hash of what decides the content: the SQL's words (comments and white space apart), how and where it is
    stored. It is of the words as written, so that a new version of sqlglot changes nothing."""
    # The tokenizer leaves comments out; a token's own text loses its quotes, so it is cut from the source instead.
    words = [sql[token.start : token.end + 1] for token in sqlglot.tokenize(sql, dialect=dialect)]
    options = model.options
    layout = [options.diststyle or "", options.distkey or "", *options.sortkey]
    return hashlib.sha256("\0".join([materialized, "\1".join(layout), *words]).encode()).hexdigest()[:16]


def _refuse_what_the_engine_has_not(model: Model, materialized: str, dialect: Dialect) -> None:
    options = model.options
    if materialized not in _MATERIALIZED[dialect]:
        allowed = ", ".join(_MATERIALIZED[dialect])
        raise MartError(f"{model.path}: materialized: found {materialized!r}, {dialect} has: {allowed}")
    layout = [name for name in ("diststyle", "distkey", "sortkey") if getattr(options, name)]
    if dialect != "redshift" and layout:
        raise MartError(f"{model.path}: {layout[0]} is Redshift's; leave it out of a mart in {dialect}")


def _refuse_what_redshift_refuses(mart: CompiledMart, compiled: Mapping[str, CompiledMart]) -> None:
    """Redshift SQL reference, CREATE MATERIALIZED VIEW, "Limitations", and what follows from how marts are stored."""
    if mart.target.dialect != "redshift" or mart.materialized != "materialized_view":
        return
    tree = parse(mart.model, mart.target.dialect)
    for query in tree.find_all(exp.Query):
        for arg in ("order", "limit", "offset"):
            if query.args.get(arg):
                raise MartError(
                    f"{mart.model.where()}: Redshift allows no {'ORDER BY' if arg == 'order' else arg.upper()} in a "
                    "materialized view; take it out, or set `-- materialized: table`"
                )
    for name in mart.marts:
        other = compiled[name]
        if other.materialized == "view":
            raise MartError(
                f"{mart.model.where()}: a materialized view cannot read {name}, which is a (late-binding) view; make "
                f"{name} a materialized_view or a table, or this one a table"
            )
        if other.materialized == "table":
            raise MartError(
                f"{mart.model.where()}: a materialized view cannot read {name}, which is a table: each refresh puts "
                f"a new table in its place, and the materialized view would go on reading the old one; make {name} a "
                "materialized_view, or this one a table"
            )


def _with_ancestors(name: str, compiled: Mapping[str, CompiledMart]) -> list[str]:
    wanted, todo = {name}, [name]
    while todo:
        for other in compiled[todo.pop()].marts:
            if other not in wanted:
                wanted.add(other)
                todo.append(other)
    return [other for other in compiled if other in wanted and other != name] + [name]


def _on_source(mart: CompiledMart) -> str:
    tree = parse(mart.model, mart.target.dialect)
    for node in list(_relations(tree)):
        if len(node.parts) == 3:
            node.set("catalog", None)
        else:  # another mart, which is a CTE here
            node.set("db", None)
    for column in tree.find_all(exp.Column):
        column.set("catalog", None)
    return str(tree.sql(dialect="postgres", pretty=True, comments=False))


def _lineage(mart: CompiledMart) -> dict[str, tuple[ColumnRef, ...]]:
    from sqlglot.lineage import lineage

    tree = parse(mart.model, mart.target.dialect)
    marts = {*mart.marts}
    try:
        nodes = lineage(None, tree, {}, dialect=mart.target.dialect)
    except SqlglotError:
        return {}  # Lineage is a picture beside the mart; SQL that Redshift takes and sqlglot cannot trace still runs.
    found: dict[str, tuple[ColumnRef, ...]] = {}
    for column, root in nodes.items():
        refs: set[ColumnRef] = set()
        for node in root.walk():
            table = node.expression
            if not isinstance(table, exp.Table) or "." not in node.name:
                continue
            source = node.name.rsplit(".", 1)[1].strip('"')
            if len(parts := _parts(table)) == 3:
                pipeline = _pipeline(parts[0], mart.model, mart.target)
                refs.add(ColumnRef(TableRef(pipeline, fold(parts[1]), fold(parts[2])), source))
            elif table.name in marts:
                refs.add(ColumnRef(table.name, source))
        if refs:
            found[column] = tuple(sorted(refs, key=lambda ref: (str(ref.relation), ref.column)))
    return found
