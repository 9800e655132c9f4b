"""Taking a pipeline down: only what this project made, and only told unless asked to do it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from zeroetl_dagster.connections.sql import identifier
from zeroetl_dagster.replication import activity
from zeroetl_dagster.replication.database import SessionFactory
from zeroetl_dagster.replication.integration import TAG_MANAGED, TAG_PIPELINE, Integration
from zeroetl_dagster.replication.target import TargetPolicy

Report = Callable[[str], None]


@dataclass(frozen=True)
class Step:
    """One thing to remove (`act`), or to leave (`act` is None), with the reason."""

    what: str
    why: str
    act: Callable[[Report], object] | None = None

    def __str__(self) -> str:
        return f"{'remove' if self.act is not None else 'leave'} {self.what}: {self.why}"


def plan(
    integration: Integration, policy: TargetPolicy | None, sessions: SessionFactory, *, database: str
) -> list[Step]:
    """What would be removed, in order: the database, the integration, our statements in the resource policy.

    The database goes only while it is known to come from an integration that this project made; the source's parameters
    and the warehouse's case sensitivity stay, since others may rely on them.
    """
    state = integration.read()
    steps: list[Step] = []
    pipeline = integration.spec.pipeline
    if state is None:
        steps.append(Step(integration.name, "it does not exist"))
        steps.append(Step(f"database {database}", _unknown(database)))
        steps.extend(_policy_steps(policy))
    elif not state.made_by(pipeline):
        why = f"it lacks the tags {TAG_MANAGED} and {TAG_PIPELINE}={pipeline}, so this project did not make it"
        steps.append(Step(f"integration {state.name}", why))
        steps.append(Step(f"database {database}", "its integration was not made by this project"))
    else:
        steps.append(_database_step(sessions, state.integration_id, database))
        steps.append(
            Step(f"integration {state.name}", "this project made it", lambda report: integration.delete(state, report))
        )
        steps.extend(_policy_steps(policy))
    steps.append(Step("source parameters and case sensitivity", "others may rely on them"))
    return steps


def execute(steps: list[Step], report: Report, *, dry_run: bool) -> None:
    """Report every step, and do those that act unless it is a dry run."""
    for step in steps:
        report(f"would {step}" if dry_run and step.act is not None else str(step))
        if step.act is not None and not dry_run:
            step.act(report)


def _policy_steps(policy: TargetPolicy | None) -> list[Step]:
    """Also after an integration that is gone: a teardown that was interrupted is finished by the next one."""
    if policy is None or not policy.added():
        return []
    return [Step("this source's statements in the resource policy", "only those this project added", policy.remove)]


def _database_step(sessions: SessionFactory, integration_id: str, database: str) -> Step:
    with sessions() as session:
        rows = activity.read_integrations(session, integration_id)
    if not any(row.target_database == database for row in rows):
        return Step(f"database {database}", "SVV_INTEGRATION does not say that it comes from this integration")
    statement = f"DROP DATABASE {identifier(database)}"

    def drop(report: Report) -> None:
        with sessions() as session:
            session.execute(statement)
        report(statement)

    return Step(f"database {database}", f"made from this integration ({statement})", drop)


def _unknown(database: str) -> str:
    return (
        f"without its integration nothing says who made it; if it is a leftover: DROP DATABASE {identifier(database)}"
    )
