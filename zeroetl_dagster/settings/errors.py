"""Errors of the configuration: one message that says where, what was found, what is allowed and how to mend it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

Model = TypeVar("Model", bound=BaseModel)
# pydantic's own words, put as a demand on the value: "Input should be …", "String should have …".
_DEMAND = re.compile(r"^(?:Input|String|Value|Number|List|Tuple|Dictionary|Object) should")
_PLAIN = {
    "string_type": "text",
    **dict.fromkeys(("tuple_type", "list_type", "set_type"), "a list"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("date_type", "date_parsing", "date_from_datetime_parsing"), "a date, like 2026-01-31"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
}
_MAPPING_WANTED = ("model_type", "model_attributes_type", "dict_type", "mapping_type")
# What pydantic puts into the path of an error for a validator or for one side of a union; no YAML key looks like it.
_NO_KEY = re.compile(
    r"(function-\w+|literal|tagged-union|nullable|chain|lax-or-strict|is-instance|tuple|list|dict)\[.*"
)


class SettingsError(ValueError):
    """The configuration is not as it must be; the message names every place."""


def parse(model: type[Model], data: Any, where: str) -> Model:
    """`data` as a `model`. `where` names the file or component; it heads the message. Raises `SettingsError`."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise SettingsError(explain(error, model, where)) from None


def explain(error: ValidationError, model: type[BaseModel], where: str) -> str:
    """All problems of a ValidationError, one line each, with the path as it stands in the YAML."""
    lines: dict[str, list[str]] = {}
    for problem in error.errors(include_url=False):
        said, demand = _line(dict(problem), model)
        lines.setdefault(said, []).extend([demand] if demand else [])
    # Of a choice (a list, or a word), pydantic tells each side; to the user it is one problem.
    return _message(["".join((said, "; or ".join(demands))) for said, demands in lines.items()], where)


def _message(lines: list[str], where: str) -> str:
    if len(lines) == 1:
        return f"{where}: {lines[0]}"
    return "\n".join([f"{where}: {len(lines)} settings are not right:", *(f"  - {line}" for line in lines)])


def _line(problem: Mapping[str, Any], model: type[BaseModel]) -> tuple[str, str]:
    """What is wrong, and what is demanded instead where that may be one of several things."""
    loc = tuple(part for part in problem["loc"] if not _NO_KEY.fullmatch(str(part)))
    path, kind, context = _path(loc), problem["type"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        allowed = _keys(model, loc[:-1])
        return f"`{path}` is not known here{_nearest(str(loc[-1]), allowed)}; allowed: {', '.join(allowed)}", ""
    field = _field(model, loc)
    if kind == "missing":
        about = _about(field)
        return f"`{path}` is missing{': ' if about else ''}{about}", ""
    if kind in ("value_error", "assertion_error"):
        return _refused(path, problem.get("input"), str(context.get("error", problem["msg"]))), ""
    found = f"`{path or 'attributes'}` is {_shown(problem.get('input'))}; "
    if kind in _MAPPING_WANTED:
        keys = _keys(model, loc)
        if "password_env" in keys:  # who misunderstands a login may have written the password itself
            found = f"`{path}` is no mapping; "
        return found, f"it must hold settings: {', '.join(keys)}" if keys else "it must be `name: value` pairs"
    about = _about(field)
    return found, _demand(kind, problem["msg"], context) + (f" ({about})" if about else "")


def _refused(path: str, value: Any, said: str) -> str:
    """What a rule of ours says, with the value where it does not quote that itself."""
    if not path:
        return said
    quoted = not isinstance(value, str | int | float) or repr(value) in said
    return f"`{path}`: {said}" if quoted else f"`{path}` is {_shown(value)}; {said}"


def _demand(kind: str, message: str, context: Mapping[str, Any]) -> str:
    """What pydantic asks for, in the words of YAML."""
    if kind == "literal_error":
        return "allowed: " + str(context["expected"]).replace("True", "true").replace("False", "false")
    if kind in _PLAIN:
        return f"it must be {_PLAIN[kind]}"
    if kind in ("string_too_short", "too_short") and context.get("min_length") == 1:
        return "it must not be empty"
    if kind == "string_pattern_mismatch":
        return "it is not of the form that is needed"
    text = _DEMAND.sub("it must", message)
    return text[0].lower() + text[1:]


def _about(field: FieldInfo | None) -> str:
    """An example of a field, or else what its description says."""
    if field is None:
        return ""
    if field.examples:
        return f"like {' or '.join(str(example) for example in field.examples)}"
    return field.description or ""


def _path(loc: tuple[Any, ...]) -> str:
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _keys(model: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    """The keys that are allowed at a path, as they are written in YAML; none where any key is."""
    found = {key for inner in _models(_at(model, loc)) for key in _by_key(inner)}
    return sorted(found)


def _field(model: type[BaseModel], loc: tuple[Any, ...]) -> FieldInfo | None:
    """The field at a path; None for an entry of a list or dict."""
    if not loc:
        return None
    fields = (_by_key(inner).get(str(loc[-1])) for inner in _models(_at(model, loc[:-1])))
    return next((field for field in fields if field is not None), None)


def _at(annotation: Any, loc: tuple[Any, ...]) -> list[Any]:
    """The annotations that a path leads to: several where a union leaves a choice."""
    found = [annotation]
    for part in loc:
        found = [inner for one in found for inner in _step(one, part)]
    return found


def _step(annotation: Any, part: Any) -> Iterator[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if (field := _by_key(annotation).get(str(part))) is not None:
            yield field.annotation
        return
    arguments = get_args(annotation)
    if get_origin(annotation) in (dict, Mapping):
        yield arguments[1]
    elif isinstance(part, int) and get_origin(annotation) in (list, tuple, set, frozenset):
        yield arguments[0]
    else:
        for argument in arguments:
            yield from _step(argument, part)


def _models(annotations: list[Any]) -> Iterator[type[BaseModel]]:
    for annotation in annotations:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield annotation
        elif get_origin(annotation) not in (dict, list, tuple, set, frozenset):
            yield from _models(list(get_args(annotation)))


def _by_key(model: type[BaseModel]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _nearest(name: str, allowed: list[str]) -> str:
    close = difflib.get_close_matches(name, allowed, n=1)
    return f" (did you mean `{close[0]}`?)" if close else ""


def _shown(value: Any) -> str:
    """A value as it stands in YAML, shortened."""
    if value is None:
        return "empty"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else text[:77] + "…"
