"""The Redshift database that is made from an integration: the step that no infrastructure tool declares.

Statements: Redshift SQL reference, CREATE DATABASE and ALTER DATABASE. They refuse a transaction block, and the user
who creates the database is the one whose rights the replication runs with, so this is done as the `admin` identity.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from zeroetl_dagster.connections.reconciled import Difference, NotAsDeclared
from zeroetl_dagster.connections.redshift import RedshiftSqlError, RedshiftUnavailable
from zeroetl_dagster.connections.sql import identifier, integration_uuid, literal
from zeroetl_dagster.connections.waiting import Backoff, WaitTimeout, wait_for
from zeroetl_dagster.replication import activity
from zeroetl_dagster.replication.activity import IntegrationRow, Session
from zeroetl_dagster.replication.faults import ReplicationError
from zeroetl_dagster.settings.replication import TargetOptions

SessionFactory = Callable[[], AbstractContextManager[Session]]

# Field of TargetOptions -> keyword. AUTO_REMEDIATION is known to ALTER DATABASE only.
_KEYWORDS = {
    "query_all_states": "QUERY_ALL_STATES",
    "acceptinvchars": "ACCEPTINVCHARS",
    "refresh_interval_seconds": "REFRESH_INTERVAL",
    "truncatecolumns": "TRUNCATECOLUMNS",
    "history_mode": "HISTORY_MODE",
    "auto_remediation": "AUTO_REMEDIATION",
}
# Options that SVV_INTEGRATION shows; of the others only what was last set is known.
_SHOWN = frozenset({"refresh_interval_seconds", "history_mode", "auto_remediation"})

OptionValues = Mapping[str, bool | int]
_ENSURE = "Let this project: `manage.database: ensure`."
_DUPLICATE_DATABASE = "42P04"


def declared_options(options: TargetOptions) -> dict[str, bool | int]:
    """The options that the configuration names."""
    return {name: value for name, value in options.model_dump().items() if value is not None}


def create_statement(integration_id: str, database: str, source_database: str | None, options: OptionValues) -> str:
    """CREATE DATABASE … FROM INTEGRATION. Raises ValueError for an id that is no UUID, or an impossible name."""
    text = f"CREATE DATABASE {identifier(database)} FROM INTEGRATION {literal(integration_uuid(integration_id))}"
    if source_database is not None:
        text += f" DATABASE {identifier(source_database)}"
    clause = _clause({name: value for name, value in options.items() if name != "auto_remediation"})
    return f"{text} SET {clause}" if clause else text


def alter_statement(database: str, options: OptionValues) -> str:
    """ALTER DATABASE … INTEGRATION SET …; it applies to later sessions."""
    return f"ALTER DATABASE {identifier(database)} INTEGRATION SET {_clause(options)}"


def _clause(options: OptionValues) -> str:
    words = []
    for name, value in options.items():
        keyword = _KEYWORDS[name]
        words.append(f"{keyword} = {str(value).upper()}" if isinstance(value, bool) else f"{keyword} {int(value)}")
    return " ".join(words)


@dataclass(frozen=True)
class DatabaseState:
    """What Redshift knows: the integration's rows in SVV_INTEGRATION, and whether a database of the name exists.

    `other` is the row of another integration that a database of the name was made from.
    """

    rows: tuple[IntegrationRow, ...]
    exists: bool
    other: IntegrationRow | None = None

    def of(self, database: str) -> IntegrationRow | None:
        """The row of the integration for one target database."""
        return next((row for row in self.rows if row.target_database == database and not row.pending), None)


class IntegrationDatabase:
    """One database made from one integration, reconciled.

    `last_set` are the options as they were last set (the ones Redshift does not show), None when nobody knows; `strict`
    says whether an option that nobody knows counts as a difference: it does where it can be set again without harm.
    `replace` names the database that may be dropped and made anew.
    """

    def __init__(
        self,
        sessions: SessionFactory,
        *,
        integration_id: str,
        database: str,
        source_database: str | None,
        options: OptionValues,
        last_set: OptionValues | None = None,
        strict: bool = True,
        replace: str | None = None,
        wait_seconds: float = 900,
        poll: Backoff | None = None,
    ) -> None:
        self.sessions = sessions
        self.integration_id = integration_uuid(integration_id)
        self.database = database
        self.source_database = source_database
        self.options = dict(options)
        self.last_set = dict(last_set or {})
        self.strict = strict
        self.replace = replace
        self.wait_seconds = wait_seconds
        self.poll = poll

    @property
    def name(self) -> str:
        return f"Redshift database {self.database}"

    def read(self) -> DatabaseState:
        """Both catalogues in one session."""
        with self.sessions() as session:
            rows = activity.read_integrations(session, self.integration_id)
            found = session.query("SELECT datname FROM pg_database WHERE datname = %s", (self.database,))
            named = activity.read_integrations_into(session, self.database) if found.rows else []
        other = next((row for row in named if row.integration_id != self.integration_id), None)
        return DatabaseState(tuple(rows), bool(found.rows), other)

    def diff(self, state: DatabaseState | None) -> list[Difference]:
        """What differs from the declaration, most fundamental first."""
        row = state.of(self.database) if state is not None else None
        if state is None or row is None:
            blocked = self._blocked(state)
            return blocked or [Difference(self.name, "nothing", "a database made from the integration", _ENSURE)]
        if row.state == "ErrorState":
            remedy = "See the errors of the integration in RDS."
            return [Difference("state in SVV_INTEGRATION", row.state, "CdcRefreshState", remedy)]
        return self._blocked(state) or [
            Difference(f"option {_KEYWORDS[name]}", self._found(row, name), str(value).upper(), _ENSURE)
            for name, value in self._drift(row).items()
        ]

    def apply(self, differences: Sequence[Difference], report: Callable[[str], None]) -> None:
        """Create the database, or set options that drifted.

        Raises `NotAsDeclared` where only dropping a database would do and none was named to be replaced;
        `ReplicationError` when Redshift does not know the integration, or may not show it.
        """
        state = self._wait_visible(report)
        row = state.of(self.database)
        blocked = self._blocked(state)
        if blocked:
            self._drop(blocked, report)
            row = None
        with self.sessions() as session:
            if row is None:
                self._create(session, report)
                drift = {name: value for name, value in self.options.items() if name == "auto_remediation"}
            else:
                drift = self._drift(row)
            if drift:
                statement = alter_statement(self.database, drift)
                report(f"{self.name}: {statement}")
                session.execute(statement)
        self.last_set.update(self.options)
        self._wait_made(report)

    def _create(self, session: Session, report: Callable[[str], None]) -> None:
        statement = create_statement(self.integration_id, self.database, self.source_database, self.options)
        report(f"{self.name}: {statement}")
        try:
            session.execute(statement)
        except RedshiftSqlError as error:
            if error.code != _DUPLICATE_DATABASE:
                raise
            # Somebody was faster: what they made is compared like any other.
            report(f"{self.name}: it exists already")

    def _blocked(self, state: DatabaseState | None) -> list[Difference]:
        """Differences that only dropping a database removes."""
        if state is None:
            return []
        row = state.of(self.database)
        if row is not None:
            if self.source_database is None or row.source_database in ("", self.source_database):
                return []
            found, remedy = row.source_database, self._replacement(self.database)
            return [Difference("source database", found, self.source_database, remedy)]
        sibling = next((one for one in state.rows if not one.pending and self._same_source(one)), None)
        if sibling is not None:
            found = f"{sibling.target_database}, made from the same integration"
            remedy = f"To adopt it: `target.database: {sibling.target_database}`. "
            remedy += self._replacement(sibling.target_database)
            return [Difference(self.name, found, self.database, remedy)]
        if not state.exists:
            return []
        if state.other is not None:
            found = (
                f"a database made from another integration ({state.other.integration_id}, {state.other.state}): this "
                "integration in an earlier life, or somebody else's"
            )
        else:
            found = f"a database of this name that was not made from integration {self.integration_id}"
        remedy = f"Choose another `target.database`. {self._replacement(self.database)}"
        return [Difference(self.name, found, f"a database made from integration {self.integration_id}", remedy)]

    def _same_source(self, row: IntegrationRow) -> bool:
        return self.source_database is None or row.source_database in ("", self.source_database)

    def _replacement(self, database: str) -> str:
        return (
            f"To drop {database} and make it anew (a full load of every table): run the asset with "
            f"`replace_database: {database}`."
        )

    def _drift(self, row: IntegrationRow) -> dict[str, bool | int]:
        """Declared options that are known to be otherwise, or not known."""
        drift: dict[str, bool | int] = {}
        for name, value in self.options.items():
            found = getattr(row, name) if name in _SHOWN else None
            if found is None:
                found = self.last_set.get(name)
            if found != value and (found is not None or self.strict):
                drift[name] = value
        return drift

    def _found(self, row: IntegrationRow, name: str) -> str:
        found = getattr(row, name) if name in _SHOWN else None
        if found is None:
            found = self.last_set.get(name)
        return "unknown (Redshift does not show it)" if found is None else str(found).upper()

    def _drop(self, blocked: Sequence[Difference], report: Callable[[str], None]) -> None:
        allowed = [one for one in blocked if f"`replace_database: {self.replace}`" in one.remedy]
        if self.replace is None or not allowed:
            raise NotAsDeclared(self.name, blocked)
        statement = f"DROP DATABASE {identifier(self.replace)}"
        report(f"{self.name}: {statement}")
        with self.sessions() as session:
            session.execute(statement)

    def _wait_visible(self, report: Callable[[str], None]) -> DatabaseState:
        """Redshift learns of a new integration a little after RDS says active."""
        try:
            return wait_for(
                self.read,
                until=lambda seen: bool(seen.rows),
                describe=lambda seen: "known to Redshift" if seen.rows else "SVV_INTEGRATION has no row of it yet",
                timeout_seconds=self.wait_seconds,
                report=report,
                poll=self.poll,
                passing=_passing,
            )
        except WaitTimeout as error:
            raise ReplicationError(
                f"SVV_INTEGRATION shows no row of integration {self.integration_id} after {self.wait_seconds:.0f} s: "
                "the admin identity may not see it (a superuser does; `zeroetl grants` prints what it needs), or the "
                "connection leads to another namespace than the integration's target"
            ) from error

    def _wait_made(self, report: Callable[[str], None]) -> None:
        wait_for(
            self.read,
            until=lambda seen: seen.of(self.database) is not None,
            describe=lambda seen: ", ".join(
                f"{row.target_database or 'no database'}: {row.state}" for row in seen.rows
            ),
            timeout_seconds=self.wait_seconds,
            report=report,
            poll=self.poll,
            passing=_passing,
        )


def _passing(error: Exception) -> str | None:
    """A target cannot be queried at times while an integration is made (Aurora guide, "Creating integrations")."""
    return str(error) if isinstance(error, RedshiftUnavailable) else None
