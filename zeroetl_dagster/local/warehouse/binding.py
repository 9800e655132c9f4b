"""From Redshift's tree to DuckDB's SQL: whose table a name is, what views stand for, what each expression means.

The result says which relations are read and written, so that rights and replication states can be asked at each run;
the SQL itself is good until the catalogue changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import duckdb
from sqlglot import exp

from zeroetl_dagster.local.warehouse.blanks import without_blanks
from zeroetl_dagster.local.warehouse.dialect import names, parse
from zeroetl_dagster.local.warehouse.errors import SqlError, not_implemented
from zeroetl_dagster.local.warehouse.meaning import SessionFunctions, meaning
from zeroetl_dagster.local.warehouse.naming import name_columns
from zeroetl_dagster.local.warehouse.probing import is_scope, scope_of
from zeroetl_dagster.local.warehouse.relations import Body, Column, Relation, Relations
from zeroetl_dagster.local.warehouse.texts import text_types
from zeroetl_dagster.local.warehouse.typed import with_types
from zeroetl_dagster.local.warehouse.types import from_duckdb

_CATALOGUES = ("pg_catalog", "information_schema")


@dataclass(frozen=True)
class Use:
    """`privilege` None: read through a view, whose owner answers for it."""

    relation: Relation
    privilege: str | None


@dataclass
class Bound:
    sql: str = ""
    uses: list[Use] = field(default_factory=list)
    columns: list[Column] = field(default_factory=list)
    tree: exp.Expr | None = None


class Catalogue:
    """What names mean for one session: its database and search path, its temporary tables, the system views.

    `system_view(schema, name)` gives the DuckDB name and the columns of a system view, or None when there is none.
    """

    def __init__(
        self,
        relations: Relations,
        database: str,
        search_path: Iterable[str],
        system_view: Callable[[str, str], tuple[str, list[Column]] | None],
    ) -> None:
        self.relations = relations
        self.database = database
        self.search_path = tuple(search_path)
        self.system_view = system_view

    def find(self, name: tuple[str, ...]) -> Relation | None:
        """A relation by its one, two or three names."""
        if len(name) > 3:
            raise SqlError(
                "0A000", f"cross-database references of {len(name)} parts are not implemented: {'.'.join(name)}"
            )
        if len(name) == 1 and name[0] in self.relations.temporary:
            return Relation("temp", "main", name[0], "temp", None)
        database = name[0] if len(name) == 3 else self.database
        schemas = [name[-2]] if len(name) > 1 else self.search_path
        return next((found for schema in schemas if (found := self.relations.find(database, schema, name[-1]))), None)

    def need(self, name: tuple[str, ...]) -> Relation:
        """Raises `SqlError` (42P01)."""
        found = self.find(name)
        if found is None:
            raise SqlError("42P01", f'relation "{".".join(name)}" does not exist')
        return found

    def place(self, name: tuple[str, ...]) -> tuple[str, str]:
        """Schema and name of something that is to be made in this database."""
        if len(name) == 3 and name[0] != self.database or len(name) > 3:
            raise SqlError("0A000", "cross-database reference is for reading only")
        schemas = self.relations.schemas(self.database)
        schema = name[-2] if len(name) > 1 else next((one for one in self.search_path if one in schemas), None)
        if schema is None:
            raise SqlError("3F000", "no schema has been selected to create in")
        if schema not in schemas:
            raise SqlError("3F000", f'schema "{schema}" does not exist')
        return schema, name[-1]


class Binder:
    """Binds statements of one session. `describe` gives the types of a query's columns, asking DuckDB."""

    def __init__(
        self,
        catalogue: Catalogue,
        user: str,
        functions: SessionFunctions,
        describe: Callable[[str], list[tuple[str, str]]],
    ) -> None:
        self.catalogue = catalogue
        self.user = user
        self.functions = functions
        self.describe = describe

    def bind(self, tree: exp.Expr, target: exp.Table | None = None, privilege: str = "") -> Bound:
        """`target`: the table of `tree` that is written, which needs `privilege`. `tree` is changed."""
        bound, columns = Bound(), dict[int, list[Column]]()
        name_columns(tree)
        self._resolve(tree, bound, columns, target, privilege)
        self._number_relations(tree)
        self._navigate(tree)
        _need_exact_names(tree, columns.values())
        self._expand_aliases(tree)
        texts = text_types(tree, lambda table: columns.get(id(table))) if isinstance(tree, exp.Query) else None
        meant = meaning(tree, self.functions, self.user)
        typed = with_types(meant, lambda sql: [kind for _, kind in self.describe(sql)])
        bound.tree = without_blanks(typed, self.describe)
        bound.sql = bound.tree.sql("duckdb")
        if isinstance(bound.tree, exp.Query):
            described = [Column(name, from_duckdb(kind)) for name, kind in self.describe(bound.sql)]
            if texts is not None and len(texts) == len(described):
                described = [
                    Column(column.name, kind) if kind is not None and column.type.is_text else column
                    for column, kind in zip(described, texts, strict=True)
                ]
            bound.columns = described
        return bound

    # ---- names -------------------------------------------------------------------------------------------------------

    def _resolve(
        self,
        tree: exp.Expr,
        bound: Bound,
        columns: dict[int, list[Column]],
        target: exp.Table | None,
        privilege: str | None,
    ) -> None:
        for table in list(tree.find_all(exp.Table)):
            if isinstance(table.this, exp.Func) and not self._from_function(table):
                continue
            if not isinstance(table.this, exp.Identifier) or _is_cte(table):
                continue
            name = tuple(part.name for part in table.parts)
            view = self._system_view(name)
            if view is not None:
                _rename(table, view[0])
                columns[id(table)] = view[1]
                continue
            relation = self.catalogue.need(name)
            wanted = privilege if table is target else "SELECT"
            bound.uses.append(Use(relation, None if privilege is None else wanted))
            if relation.kind in ("view", "late"):
                self._inline(table, relation, bound, columns)
            else:
                _rename(table, relation.sql)
                columns[id(table)] = self.catalogue.relations.columns(relation)

    def _from_function(self, table: exp.Table) -> bool:
        """A function where a table is named: one that the catalogue has as a view (True), or one value."""
        name = table.this.name.lower() or table.this.sql_name().lower()
        alias = table.args.get("alias")
        if alias is not None:  # `f() AS t(a name, b int)`: the types are known
            alias.set("columns", [one.this if isinstance(one, exp.ColumnDef) else one for one in alias.columns])
        if self._system_view(("pg_catalog", name)) is not None:
            table.set("this", exp.to_identifier(name, quoted=True))
            return True
        if name in self.functions:
            value = exp.select(exp.alias_(table.this.copy(), name, quoted=True))
            table.replace(exp.Subquery(this=value, alias=alias or exp.TableAlias(this=exp.to_identifier(name))))
        return False

    def _system_view(self, name: tuple[str, ...]) -> tuple[str, list[Column]] | None:
        if len(name) > 1 and name[-2] not in _CATALOGUES:
            return None
        if len(name) == 1 and name[0] in self.catalogue.relations.temporary:
            return None
        return self.catalogue.system_view(name[-2] if len(name) > 1 else "pg_catalog", name[-1])

    def _inline(self, table: exp.Table, view: Relation, bound: Bound, columns: dict[int, list[Column]]) -> None:
        """The view's query in the place of its name; its bases are read with its owner's rights."""
        assert view.body is not None
        body = Body.parse(view.body)
        tree = parse(body.text, body.case_sensitive)
        name_columns(tree)
        inner = Binder(
            Catalogue(self.catalogue.relations, view.database, body.search_path, self.catalogue.system_view),
            self.user, self.functions, self.describe,
        )  # fmt: skip
        holder = exp.Subquery(this=tree)
        inner._resolve(holder, bound, columns, None, None)
        if view.database != self.catalogue.database:
            for use in bound.uses:
                if use.privilege is None and use.relation.database != view.database:
                    raise not_implemented(
                        f"a view of another database ({view.name} of {view.database}) that reads a third one "
                        f"({use.relation.database}); neither does Redshift"
                    )
        alias = exp.TableAlias(this=exp.to_identifier(table.alias_or_name, quoted=True))
        given = table.args.get("alias")
        names = [column.copy() for column in given.columns] if given else []
        if not names and body.columns:
            names = [exp.to_identifier(name, quoted=True) for name in body.columns]
        alias.set("columns", names)
        table.replace(exp.Subquery(this=holder.this, alias=alias))

    def _number_relations(self, tree: exp.Expr) -> None:
        """`'public.sales'::regclass` is the number of that relation."""
        for cast in list(tree.find_all(exp.Cast)):
            if cast.to.sql().upper() == "REGCLASS" and isinstance(cast.this, exp.Literal):
                relation = self.catalogue.need(names(cast.this.this, True))
                cast.replace(exp.Literal.number(relation.oid))

    # ---- SUPER values, and aliases of the same SELECT ----------------------------------------------------------------

    def _navigate(self, tree: exp.Expr) -> None:
        """`t.item.price` where `item` is a SUPER column: steps into the value. Names of tables lose their databases."""
        for dot in list(tree.find_all(exp.Dot)):
            if isinstance(dot.expression, exp.Identifier):
                dot.replace(exp.Bracket(this=dot.this, expressions=[exp.Literal.string(dot.expression.name)]))
        for column in list(tree.find_all(exp.Column)):
            parts = [part.name for part in column.parts if isinstance(part, exp.Identifier)]
            if len(parts) < 2 or isinstance(column.this, exp.Star):
                continue
            visible = _visible(column)
            start = next((at for at, part in enumerate(parts[:-1]) if part in visible), None)
            table, rest = (parts[start], parts[start + 1 :]) if start is not None else (None, parts)
            if start is None and len(parts) > 2:
                continue
            made: exp.Expr = exp.column(exp.to_identifier(rest[0], quoted=True), table, quoted=True)
            for step in rest[1:]:
                made = exp.Bracket(this=made, expressions=[exp.Literal.string(step)])
            column.replace(made)

    def _expand_aliases(self, tree: exp.Expr) -> None:
        """`SELECT SUM(a) AS s, s / 2`: DuckDB knows such names, but not those of aggregates."""
        for select in tree.find_all(exp.Select):
            known: dict[str, exp.Expr] = {}
            for projection in select.expressions:
                if known:
                    for column in list(projection.find_all(exp.Column)):
                        if not column.table and column.name in known and scope_of(column) is select:
                            self._expand_alias(select, column, known[column.name])
                if isinstance(projection, exp.Alias) and projection.this.find(exp.AggFunc):
                    known[projection.alias] = projection.this

    def _expand_alias(self, select: exp.Select, column: exp.Column, meant: exp.Expr) -> None:
        probe = exp.Select(expressions=[column.copy()], from_=select.args.get("from_"))
        probe.set("joins", [join.copy() for join in select.args.get("joins") or []])
        probe.set("from_", select.args["from_"].copy() if select.args.get("from_") else None)
        try:
            self.describe(probe.sql("duckdb"))
        except duckdb.Error:  # no such column: it is the alias
            column.replace(exp.Paren(this=meant.copy()))


def _need_exact_names(tree: exp.Expr, columns: Iterable[list[Column]]) -> None:
    """DuckDB does not tell names of columns apart by case. Raises `SqlError` (42703)."""
    known = {column.name for some in columns for column in some}
    mixed = {name.lower() for name in known if name != name.lower()}
    if not mixed:
        return
    given = {one.alias for one in tree.find_all(exp.Alias)}
    given |= {name.name for alias in tree.find_all(exp.TableAlias) for name in alias.columns}
    for column in tree.find_all(exp.Column):
        if column.name.lower() in mixed and column.name not in known | given:
            raise SqlError("42703", f'column "{column.name}" does not exist')


def _rename(table: exp.Table, name: str) -> None:
    """Another name for what is read; the query goes on to call it as before."""
    parts = exp.to_table(name, dialect="duckdb").parts
    if not table.alias:
        table.set("alias", exp.TableAlias(this=exp.to_identifier(table.name, quoted=True)))
    for key, part in zip(("this", "db", "catalog"), reversed(parts), strict=False):
        table.set(key, part.copy())


def _is_cte(table: exp.Table) -> bool:
    """Whether the name is one of a WITH clause around it, which a table does not hide."""
    if table.db:
        return False
    node: exp.Expr = table
    while node.parent is not None:
        parent = node.parent
        clause = parent if isinstance(parent, exp.With) else parent.args.get("with_")
        if clause is not None and clause is not node:
            visible = clause.expressions
            if isinstance(parent, exp.With):
                place = next(at for at, one in enumerate(visible) if one is node)
                visible = visible[: place + bool(clause.args.get("recursive"))]
            if any(one.alias == table.name for one in visible):
                return True
        node = parent
    return False


def _visible(column: exp.Column) -> set[str]:
    """The names of what is read in the SELECTs around a column."""
    found: set[str] = set()
    scope = scope_of(column)
    while scope is not None:
        sources = [scope.args.get("from_"), *(scope.args.get("joins") or []), *(scope.args.get("laterals") or [])]
        tables = [one.this for one in sources if one is not None]
        if isinstance(scope, exp.Update | exp.Delete | exp.Merge):
            using = scope.args.get("using") or []
            tables += [scope.this, *(using if isinstance(using, list) else [using])]
        found |= {table.alias_or_name for table in tables if table is not None}
        scope = scope_of(scope) if is_scope(scope) else None
    return found
