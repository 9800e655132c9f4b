"""One type, four spellings: Hive (Glue's columns), Trino (Athena's results), DuckDB (the engine), Arrow (files).

A type is parsed once into a small tree; each spelling is written from the tree. Trino names are those of Athena engine
version 3: `string` is `varchar`, `int` is `integer`, `float` is `real`, timestamps have milliseconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow


class UnknownType(ValueError):
    """A type that has no counterpart here; the message names it."""


@dataclass(frozen=True)
class Type:
    """`name` is Hive's; `arguments` are numbers (decimal, varchar, char) or types; `fields` name those of a struct."""

    name: str
    arguments: tuple[Any, ...] = ()
    fields: tuple[str, ...] = ()

    @property
    def is_text(self) -> bool:
        return self.name in ("string", "varchar", "char")

    @property
    def is_number(self) -> bool:
        return self.name in _NUMBERS

    @property
    def hive(self) -> str:
        return _written(self, "hive")

    @property
    def trino(self) -> str:
        return _written(self, "trino")

    @property
    def duckdb(self) -> str:
        return _written(self, "duckdb")


_NUMBERS = ("tinyint", "smallint", "int", "bigint", "float", "double", "decimal")
_ALIASES = {
    "integer": "int",
    "long": "bigint",
    "short": "smallint",
    "byte": "tinyint",
    "real": "float",
    "varbinary": "binary",
    "blob": "binary",
    "bool": "boolean",
    "numeric": "decimal",
    "row": "struct",
    "timestamp with time zone": "timestamptz",
    "hugeint": "bigint",
    "text": "string",
    "json": "json",
}
_TRINO = {"int": "integer", "float": "real", "string": "varchar", "binary": "varbinary", "struct": "row"}
_DUCKDB = {
    "int": "INTEGER",
    "float": "REAL",
    "string": "VARCHAR",
    "varchar": "VARCHAR",
    "char": "VARCHAR",
    "binary": "BLOB",
    "timestamptz": "TIMESTAMP WITH TIME ZONE",
    "interval": "INTERVAL",
}
_SIMPLE = {
    *_NUMBERS,
    "string",
    "varchar",
    "char",
    "binary",
    "boolean",
    "date",
    "timestamp",
    "timestamptz",
    "time",
    "json",
    "interval",
    "unknown",
}
_TOKEN = re.compile(r"\s*(\"(?:[^\"]|\"\")*\"|[^\s<>(),:\"\[\]]+|[<>(),:\[\]])")


@lru_cache(maxsize=4096)
def parse(text: str) -> Type:
    """Any of the spellings, e.g. `array<struct<a:int>>`, `row(a integer)`, `DECIMAL(10,2)`, `STRUCT(a INTEGER)[]`.

    Raises `UnknownType`.
    """
    tokens = [found.group(1) for found in _TOKEN.finditer(text)]
    parser = _Parser(tokens, text)
    made = parser.type()
    if parser.position != len(tokens):
        raise UnknownType(f"{text!r} is not a type of Hive or Trino")
    return made


class _Parser:
    def __init__(self, tokens: list[str], text: str) -> None:
        self.tokens, self.text, self.position = tokens, text, 0

    def peek(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def take(self, expected: str = "") -> str:
        token = self.peek()
        if not token or (expected and token != expected):
            raise UnknownType(f"{self.text!r} is not a type of Hive or Trino")
        self.position += 1
        return token

    def type(self) -> Type:
        name = self.take().lower()
        if name == "timestamp":
            name, arguments = self._timestamp()
        elif name == "double" and self.peek().lower() == "precision":
            self.take()
            arguments = ()
        else:
            name = _ALIASES.get(name, name)
            arguments = ()
        if name in ("array", "map", "struct"):
            made = self._nested(name)
        else:
            if name not in _SIMPLE:
                raise UnknownType(f"{self.text!r}: there is no type {name!r}")
            if name in ("decimal", "varchar", "char", "time") and self.peek() == "(":
                arguments = self._numbers()
            made = Type(name, arguments if name not in ("time", "timestamp") else ())
        if made.name == "decimal" and len(made.arguments) < 2:
            made = Type("decimal", (*(made.arguments or (38,)), 0) if made.arguments else (38, 0))
        while self.peek() == "[":
            self.take("[")
            self.take("]")
            made = Type("array", (made,))
        return made

    def _timestamp(self) -> tuple[str, tuple[Any, ...]]:
        if self.peek() == "(":
            self._numbers()
        if self.peek().lower() in ("with", "without"):
            with_zone = self.take().lower() == "with"
            self.take(), self.take()
            return ("timestamptz" if with_zone else "timestamp"), ()
        return "timestamp", ()

    def _numbers(self) -> tuple[int, ...]:
        self.take("(")
        numbers = [int(self.take())]
        while self.peek() == ",":
            self.take(",")
            numbers.append(int(self.take()))
        self.take(")")
        return tuple(numbers)

    def _nested(self, name: str) -> Type:
        close = {"<": ">", "(": ")"}.get(self.take(), "")
        fields: list[str] = []
        inner: list[Type] = []
        while True:
            if name == "struct":
                fields.append(self.take().strip('"'))
                if self.peek() == ":":
                    self.take(":")
            inner.append(self.type())
            if self.peek() != ",":
                break
            self.take(",")
        self.take(close)
        return Type(name, tuple(inner), tuple(fields))


def _written(made: Type, spelling: str) -> str:
    if made.name in ("array", "map", "struct"):
        return _written_nested(made, spelling)
    if spelling == "duckdb":
        name = _DUCKDB.get(made.name, made.name.upper())
        return f"{name}({made.arguments[0]},{made.arguments[1]})" if made.name == "decimal" else name
    name = _TRINO.get(made.name, made.name) if spelling == "trino" else made.name
    if made.name == "timestamptz":
        return "timestamp with time zone"
    return name + (f"({','.join(map(str, made.arguments))})" if made.arguments else "")


def _written_nested(made: Type, spelling: str) -> str:
    inner = [_written(argument, spelling) for argument in made.arguments]
    if spelling == "hive":
        if made.name == "struct":
            return f"struct<{','.join(f'{name}:{kind}' for name, kind in zip(made.fields, inner, strict=True))}>"
        return f"{made.name}<{','.join(inner)}>"
    if made.name == "struct":
        quoted = [_quoted(name, spelling) for name in made.fields]
        word = "STRUCT" if spelling == "duckdb" else "row"
        return f"{word}({', '.join(f'{name} {kind}' for name, kind in zip(quoted, inner, strict=True))})"
    if spelling == "duckdb":
        return f"{inner[0]}[]" if made.name == "array" else f"MAP({inner[0]}, {inner[1]})"
    return f"{made.name}({', '.join(inner)})"


def _quoted(name: str, spelling: str) -> str:
    if spelling == "duckdb" or not re.fullmatch(r"[a-z_][a-z0-9_]*", name):
        return '"' + name.replace('"', '""') + '"'
    return name


def from_arrow(kind: pyarrow.DataType) -> Type:
    """The type that a crawler gives a Parquet column. Raises `UnknownType`."""
    import pyarrow as pa

    simple: list[tuple[Any, str]] = [
        (pa.types.is_boolean, "boolean"),
        (pa.types.is_int8, "tinyint"),
        (pa.types.is_int16, "smallint"),
        (pa.types.is_uint8, "smallint"),
        (pa.types.is_int32, "int"),
        (pa.types.is_uint16, "int"),
        (pa.types.is_integer, "bigint"),
        (pa.types.is_float64, "double"),
        (pa.types.is_floating, "float"),
        (pa.types.is_string, "string"),
        (pa.types.is_large_string, "string"),
        (pa.types.is_date, "date"),
        (pa.types.is_timestamp, "timestamp"),
        (pa.types.is_time, "string"),
        (pa.types.is_null, "string"),
    ]
    for check, name in simple:
        if check(kind):
            return Type(name)
    if pa.types.is_decimal(kind):
        return Type("decimal", (kind.precision, kind.scale))
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return Type("binary")
    if pa.types.is_map(kind):
        return Type("map", (from_arrow(kind.key_type), from_arrow(kind.item_type)))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return Type("array", (from_arrow(kind.value_type),))
    if pa.types.is_struct(kind):
        fields = list(_fields(kind))
        return Type("struct", tuple(t for _, t in fields), tuple(n for n, _ in fields))
    if pa.types.is_dictionary(kind):
        return from_arrow(kind.value_type)
    raise UnknownType(f"Parquet type {kind} has no type in Hive")


def _fields(kind: pyarrow.DataType) -> Iterator[tuple[str, Type]]:
    for index in range(kind.num_fields):
        field = kind.field(index)
        yield field.name.lower(), from_arrow(field.type)


def merged(left: Type, right: Type) -> Type:
    """The narrowest type that holds both, as a crawler widens columns; text where nothing else does."""
    if left == right:
        return left
    if left.is_number and right.is_number:
        if "decimal" in (left.name, right.name):
            return Type("double") if {left.name, right.name} & {"float", "double"} else Type("decimal", (38, 10))
        return Type(max((left.name, right.name), key=_NUMBERS.index))
    return Type("string")
