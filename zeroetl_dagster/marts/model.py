"""A mart is one `.sql` file: options in a comment at its head, then one plain SELECT. Read here, not understood yet.

    -- description: Tickets sold and revenue of each event.
    --   A line that is indented goes on with the value above it.
    -- materialized: table
    -- minimum_interval_seconds: 60

    SELECT ...

The file's name is the mart's name. Options are the fields of `settings.marts.MartOptions`.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from zeroetl_dagster.settings.marts import MartOptions, mart_name

_OPTION = re.compile(r"--\s?([A-Za-z_][\w-]*)\s*:\s*(.*)")
_CONTINUATION = re.compile(r"--\s{2,}(\S.*)")


class MartError(ValueError):
    """One message: file and line, what was found, what is allowed, how to mend it."""


@dataclass(frozen=True)
class Model:
    """A mart as it is written. `sql` is the text after the options; it begins on line `sql_line` of the file."""

    name: str
    path: Path
    sql: str
    sql_line: int
    options: MartOptions

    def where(self, line: int = 1) -> str:
        """`path:line`, with `line` counted from the first line of `sql`."""
        return f"{self.path}:{self.sql_line + line - 1}"


def read_models(folder: Path) -> tuple[Model, ...]:
    """Every `.sql` file directly in `folder`, by name. Raises `MartError`, also when there is none."""
    if not folder.is_dir():
        raise MartError(f"{folder}: there is no such folder; the marts' .sql files are expected there")
    paths = sorted(path for path in folder.iterdir() if path.suffix == ".sql")
    if not paths:
        raise MartError(f"{folder}: no .sql file; a mart is one file, named like the mart: {folder / 'my_mart.sql'}")
    return tuple(parse_model(path, path.read_text(encoding="utf-8")) for path in paths)


def parse_model(path: Path, text: str) -> Model:
    """The model that a file with this path and text holds. Raises `MartError`."""
    try:
        name = mart_name(path.stem)
    except ValueError as error:
        raise MartError(f"{path}: {error}; rename the file") from None
    lines = text.removeprefix("\ufeff").splitlines()
    values, at = _head(path, lines)
    body = "\n".join(lines[at:]).strip()
    first = next((n for n, line in enumerate(lines[at:], start=at) if line.strip()), None)
    if first is None:
        raise MartError(f"{path}:{len(lines) or 1}: no SQL after the options; a mart is one SELECT")
    return Model(name, path, body, first + 1, _options(path, values))


def _head(path: Path, lines: list[str]) -> tuple[dict[str, tuple[str, int]], int]:
    """The options with their line numbers, and the index of the first line after them.

    The head ends with the first line that is no comment, so that free comments may follow a blank line.
    """
    values: dict[str, tuple[str, int]] = {}
    key = ""
    for at, line in enumerate(lines):
        text = line.strip()
        if not text.startswith("--"):
            return values, at
        if key and (more := _CONTINUATION.fullmatch(text)):
            value, first = values[key]
            values[key] = (f"{value} {more[1]}".strip(), first)
        elif option := _OPTION.fullmatch(text):
            key = option[1]
            if key in values:
                raise MartError(f"{path}:{at + 1}: {key} is given twice, first on line {values[key][1]}")
            values[key] = (option[2].strip(), at + 1)
        else:
            raise MartError(
                f"{path}:{at + 1}: found {text!r} among the options; allowed are `-- key: value`, an indented line "
                "that goes on with the one above, and free comments after a blank line"
            )
    return values, len(lines)


def _options(path: Path, values: dict[str, tuple[str, int]]) -> MartOptions:
    allowed = sorted(MartOptions.model_fields)
    for key, (_, line) in values.items():
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, n=1)
            hint = f"; did you mean `{near[0]}`?" if near else ""
            raise MartError(f"{path}:{line}: unknown option `{key}`{hint} (allowed: {', '.join(allowed)})")
    given: dict[str, Any] = {key: value for key, (value, _) in values.items()}
    try:
        return MartOptions.model_validate(given)
    except ValidationError as error:
        raise MartError(_explain(path, values, error)) from None


def _explain(path: Path, values: dict[str, tuple[str, int]], error: ValidationError) -> str:
    first = error.errors()[0]
    message = str(first["msg"]).removeprefix("Value error, ")
    # A rule about two options has no place of its own: the first of them that is given stands for it.
    key = str(first["loc"][0]) if first["loc"] else next(key for key in values if key in message)
    value, line = values[key]
    if first["type"] == "literal_error":
        return f"{path}:{line}: {key}: found {value!r}, allowed: {first['ctx']['expected']}"
    return f"{path}:{line}: {key}: found {value!r}: {message}"
