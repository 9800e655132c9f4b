"""Errors of the configuration: one message that says where, what was found, what is allowed and how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)


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
    lines = [_line(dict(problem), model) for problem in error.errors(include_url=False)]
    if len(lines) == 1:
        return f"{where}: {lines[0]}"
    return "\n".join([f"{where}: {len(lines)} settings are not right:", *(f"  - {line}" for line in lines)])


def _line(problem: Mapping[str, Any], model: type[BaseModel]) -> str:
    loc = tuple(part for part in problem["loc"] if not str(part).startswith("function-"))
    path = _path(loc) or "(top level)"
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        allowed = _fields(model, loc[:-1])
        return f"`{path}` is not known here{_nearest(str(loc[-1]), allowed)}; allowed: {', '.join(allowed)}"
    if kind == "missing":
        return f"`{path}` is missing"
    if kind == "value_error":
        return f"`{path}`: {context.get('error', problem['msg'])}"
    found = _short(problem.get("input"))
    if kind == "literal_error":
        return f"`{path}` is {found}; allowed: {context['expected']}"
    message = problem["msg"].replace("Input should", "it must")
    return f"`{path}` is {found}; {message[0].lower() + message[1:]}"


def _path(loc: tuple[Any, ...]) -> str:
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _fields(model: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    """The fields of the model that `loc` leads to, as far as plain nesting, dicts and lists go."""
    current: Any = model
    for part in loc:
        current = _step(current, part)
        if current is None:
            return []
    return sorted(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []


def _step(current: Any, part: Any) -> Any:
    if isinstance(current, type) and issubclass(current, BaseModel) and part in current.model_fields:
        return _model_in(current.model_fields[part].annotation)
    return current if isinstance(current, type) and issubclass(current, BaseModel) else None


def _model_in(annotation: Any) -> Any:
    """The first model inside `X`, `X | None`, `dict[str, X]`, `list[X]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if (found := _model_in(argument)) is not None:
            return found
    return None


def _nearest(name: str, allowed: list[str]) -> str:
    close = difflib.get_close_matches(name, allowed, n=1)
    return f" (did you mean `{close[0]}`?)" if close else ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"
