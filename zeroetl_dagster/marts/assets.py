"""The assets of a component's marts: one step refreshes any subset of them, in order, in one session of their engine.

One step, because a process per mart would cost more than most refreshes, and because a session is a wake-up of the
warehouse. A mart that fails does not end the step: what does not read it goes on, what does is skipped, and the step
fails at the end with everything it has to say.

Each result records the data versions that the mart's inputs had just before its SQL ran, read by this step itself, so
that the recorded ones are never newer than what was read (Dagster's own are those at the start of the step).
"""

# No `from __future__ import annotations`: Dagster compares the context's annotation with its classes, not their names.

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import dagster as dg
from dagster import AssetExecutionContext, AssetKey, MetadataValue

from zeroetl_dagster.marts import due
from zeroetl_dagster.marts.compile import CompiledMart, TableRef
from zeroetl_dagster.marts.recorded import (
    BEGAN_AT,
    FAILED,
    INPUT_POINTER,
    INPUT_VERSION,
    KIND,
    KIND_TAG,
    MART,
    REFRESH,
    SKIPPED,
    InputVersion,
    input_versions,
)
from zeroetl_dagster.settings.marts import MartsSettings

# What Dagster itself records of an input that has no data version, and of one without an event.
_NO_VERSION = InputVersion("INITIAL", 0)
_NO_POINTER = "NULL"


@dataclass(frozen=True)
class Done:
    """One refreshed mart: metadata of its materialization, and a line for the log."""

    metadata: dict[str, Any]
    summary: str


class Engine(Protocol):
    """What refreshes one mart after the other. `failures` concern one mart only; anything else ends the step."""

    @property
    def failures(self) -> tuple[type[Exception], ...]: ...

    def refresh(self, mart: CompiledMart, inputs: Mapping[AssetKey, InputVersion]) -> Done: ...


@dataclass(frozen=True)
class Look:
    """How a mart of one engine shows in Dagster."""

    stored: str
    kinds: frozenset[str]
    table_name: str
    storage_kind: str


def mart_key(component: str, mart: str) -> AssetKey:
    """[component, mart]"""
    return AssetKey([component, mart])


def ref_key(component: str, ref: TableRef | str) -> AssetKey:
    """The asset key of what a mart reads: [pipeline, schema, table], or another mart's."""
    return mart_key(component, ref) if isinstance(ref, str) else AssetKey(ref.key)


def input_keys(mart: CompiledMart) -> list[AssetKey]:
    """The asset keys of all that a mart reads."""
    refs: list[TableRef | str] = [*mart.tables, *mart.marts]
    return [ref_key(mart.target.name, ref) for ref in refs]


def mart_spec(settings: MartsSettings, mart: CompiledMart, look: Look) -> dg.AssetSpec:
    """The asset of one mart."""
    options = mart.model.options
    interval = options.minimum_interval_seconds
    stored = f"{look.stored}, refreshed when what it reads has moved."
    return dg.AssetSpec(
        mart_key(settings.name, mart.name),
        deps=input_keys(mart),
        description="\n\n".join(filter(None, (options.description, stored, *mart.notes))),
        group_name=options.group or settings.name,
        code_version=mart.code_version,
        kinds=set(look.kinds),
        owners=[*settings.owners, *(owner for owner in options.owners if owner not in settings.owners)],
        tags={**settings.tags, **options.tags, KIND_TAG: KIND},
        skippable=True,
        metadata={
            MART: settings.name,
            REFRESH: MetadataValue.json(
                {
                    "minimum_interval_seconds": settings.minimum_interval_seconds if interval is None else interval,
                    "retry_first_seconds": settings.retry.first_seconds,
                    "retry_most_seconds": settings.retry.most_seconds,
                    "is_view": mart.materialized == "view",
                }
            ),
            "dagster/table_name": look.table_name,
            "dagster/storage_kind": look.storage_kind,
            "dagster/code_references": _code_references(mart),
        },
    )


def build_assets(
    settings: MartsSettings,
    compiled: Mapping[str, CompiledMart],
    look: Callable[[CompiledMart], Look],
    resource: str,
    engine: Callable[[AssetExecutionContext], AbstractContextManager[Engine]],
) -> dg.AssetsDefinition:
    """All marts of a component as one definition that can be subset. `resource` is what `engine` connects with."""

    @dg.multi_asset(
        name=settings.name,
        specs=[mart_spec(settings, mart, look(mart)) for mart in compiled.values()],
        can_subset=True,
        required_resource_keys={resource},
        pool=settings.pool,
    )
    def marts(context: AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        keys = context.selected_asset_keys
        selected = [mart for mart in compiled.values() if mart_key(settings.name, mart.name) in keys]
        with engine(context) as opened:
            yield from _Step(context, opened, settings.name).refresh(selected)

    return marts


@dataclass
class _Step:
    """One execution: what was made, what failed, what was left out because of it."""

    context: AssetExecutionContext
    engine: Engine
    component: str
    began_at: float = field(default_factory=time.time)
    made: dict[AssetKey, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)

    def refresh(self, marts: Sequence[CompiledMart]) -> Iterator[dg.MaterializeResult]:
        """Raises dagster.Failure at the end when a mart failed, and at once what concerns the whole session."""
        for mart in marts:
            lost = [name for name in mart.marts if name in self.failed or name in self.skipped]
            if lost:
                self.skipped.append(mart.name)
                self.context.log.warning(f"{mart.name} is left out: it reads {', '.join(lost)}, which failed")
                continue
            inputs = self._inputs(mart)
            try:
                done = self.engine.refresh(mart, inputs)
            except self.engine.failures as error:
                self.failed[mart.name] = str(error)
                self.context.log.error(f"{mart.name} failed: {error}")
                continue
            self.context.log.info(f"{mart.name}: {done.summary}")
            yield self._result(mart, done, inputs)
        if self.failed:
            raise self._failure()

    def _inputs(self, mart: CompiledMart) -> dict[AssetKey, InputVersion]:
        """The version of every input, as it is before the mart's SQL runs."""
        keys = input_keys(mart)
        found = input_versions(self.context.instance, keys)
        inputs = {key: found.get(key, _NO_VERSION) for key in keys}
        return {key: one._replace(version=self.made.get(key, one.version)) for key, one in inputs.items()}

    def _result(self, mart: CompiledMart, done: Done, inputs: Mapping[AssetKey, InputVersion]) -> dg.MaterializeResult:
        key = mart_key(self.component, mart.name)
        names = {k.to_user_string(): one for k, one in inputs.items()}
        self.made[key] = due.data_version(mart.code_version, {name: one.version for name, one in names.items()})
        return dg.MaterializeResult(
            asset_key=key,
            data_version=dg.DataVersion(self.made[key]),
            metadata={**done.metadata, **_lineage(self.component, mart)},
            tags={
                **{f"{INPUT_VERSION}{name}": one.version for name, one in names.items()},
                **{f"{INPUT_POINTER}{name}": str(one.event or _NO_POINTER) for name, one in names.items()},
                BEGAN_AT: f"{self.began_at:.3f}",
            },
        )

    def _failure(self) -> dg.Failure:
        lines = [f"{name}: {error}" for name, error in self.failed.items()]
        if self.skipped:
            lines.append(f"left out because of it: {', '.join(self.skipped)}")
        failed = {mart_key(self.component, name).to_user_string(): error for name, error in self.failed.items()}
        skipped = [mart_key(self.component, name).to_user_string() for name in self.skipped]
        return dg.Failure(
            f"{len(failed)} of the marts failed:\n" + "\n".join(lines),
            metadata={FAILED: MetadataValue.json(failed), SKIPPED: MetadataValue.json(skipped)},
        )


def _lineage(component: str, mart: CompiledMart) -> dict[str, Any]:
    if not mart.lineage:
        return {}
    deps = {
        column: [dg.TableColumnDep(ref_key(component, ref.relation), ref.column) for ref in refs]
        for column, refs in mart.lineage.items()
    }
    return {"dagster/column_lineage": dg.TableColumnLineage(deps)}


def _code_references(mart: CompiledMart) -> dg.CodeReferencesMetadataValue:
    path, line = mart.model.path, mart.model.sql_line
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        reference = dg.LocalFileCodeReference(file_path=str(path), line_number=line, label=path.name)
        return dg.CodeReferencesMetadataValue(code_references=[reference])
