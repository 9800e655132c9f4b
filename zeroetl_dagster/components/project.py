"""What only a project as a whole can tell: what two components share by mistake, and names that nobody declares.

Resources may come from Python too, so an unknown connection is only told where the project declares some in YAML.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import dagster as dg

from zeroetl_dagster.components.base import SettingsComponent
from zeroetl_dagster.components.connections import Connections
from zeroetl_dagster.connections.resources import AthenaResource, AwsResource, Connection, RedshiftResource, build
from zeroetl_dagster.marts.compile import CompiledMart, TableRef
from zeroetl_dagster.marts.model import MartError
from zeroetl_dagster.settings.errors import SettingsError

Component = TypeVar("Component", bound=SettingsComponent)

# How a path in the YAML names a kind of connection.
_KINDS: dict[str, tuple[type[Connection], str]] = {
    "aws": (AwsResource, "AWS account"),
    "redshift": (RedshiftResource, "Redshift connection"),
    "athena": (AthenaResource, "Athena connection"),
}


def check(component: SettingsComponent, tree: dg.ComponentTree, uses: Mapping[str, str | None]) -> None:
    """Raises `SettingsError` for a name or a connection that does not fit the rest of the project.

    `uses` has the component's connections by their paths in the YAML, whose last part is their kind; None is unused.
    """
    name = component.settings.name
    for other in tree.get_all_components(SettingsComponent):  # type: ignore[type-abstract]
        if other is not component and getattr(other.settings, "name", None) == name:
            raise SettingsError(
                f"{component.where}: `name` is {name!r}, and so is that of the {type(other).__name__} in {other.where}"
                "; asset keys and jobs begin with it: rename one"
            )
    declared = _declared(tree)
    for path, wanted in uses.items():
        if wanted is not None and declared:
            _check_connection(component, declared, path, wanted)


def _declared(tree: dg.ComponentTree) -> dict[str, Connection]:
    found: dict[str, Connection] = {}
    for component in tree.get_all_components(Connections):
        found.update(build(component.settings))
    return found


def _check_connection(component: SettingsComponent, declared: Mapping[str, Connection], path: str, wanted: str) -> None:
    kind, words = _KINDS[path.rpartition(".")[2]]
    if isinstance(declared.get(wanted), kind):
        return
    found = f"`{path}` is {wanted!r}"
    if wanted in declared:
        is_one = next(words for kind, words in _KINDS.values() if isinstance(declared[wanted], kind))
        found += f", which is {_an(is_one)}"
    among = sorted(name for name, connection in declared.items() if isinstance(connection, kind))
    near = "".join(f" (did you mean {one!r}?)" for one in difflib.get_close_matches(wanted, among, n=1))
    raise SettingsError(
        f"{component.where}: {found}; it must name {_an(words)} of a Connections component{near}; declared: "
        f"{', '.join(among) or 'none'}"
    )


def _an(words: str) -> str:
    return f"{'a' if words.startswith('R') else 'an'} {words}"


def check_relations(
    component: Component, tree: dg.ComponentTree, place: Callable[[Component], tuple[str, ...]], setting: str
) -> None:
    """Raises `SettingsError` where another component of its class makes the same relation: they would exchange each
    other's for ever.

    `place` is where a component's `.sql` files become relations; its last part is what `setting` says.
    """
    mine = {path.stem for path in _sql_files(component)}
    for other in tree.get_all_components(type(component)):
        if other is component or place(other) != place(component):
            continue
        if twice := sorted(mine & {path.stem for path in _sql_files(other)}):
            raise SettingsError(
                f"{component.where}: {place(component)[-1]}.{twice[0]} is made by {other.where} too; give one of them "
                f"another `{setting}`, or rename the file"
            )


def check_listed(
    mart: CompiledMart, table: TableRef, name: str, listed: Iterable[str], maker: SettingsComponent
) -> None:
    """Raises `MartError` where a mart reads a table that its pipeline or export does not list."""
    names = list(listed)
    if name in names:
        return
    hint = "".join(f" (did you mean {near}?)" for near in difflib.get_close_matches(name, names, n=1))
    raise MartError(
        f"{mart.model.path}: {table.pipeline}.{name} is not among the `tables` of the {type(maker).__name__} in "
        f"{maker.where}{hint}; list it there, or the mart would wait for it for ever"
    )


def _sql_files(component: SettingsComponent) -> Iterator[Path]:
    return Path(component.where).parent.glob("*.sql")
