"""`zeroetl grants`: the SQL that gives the Redshift identities their rights, by the project's YAML or by options."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zeroetl_dagster.connections.grants import Identities, MartsSchema, iam_user, script, steps

if TYPE_CHECKING:
    from zeroetl_dagster.settings.connections import AwsAccount, RedshiftConnection


@dataclass(frozen=True)
class Wanted:
    """One Redshift connection of the project, and what uses it."""

    name: str
    connection: RedshiftConnection
    account: AwsAccount
    pipelines: tuple[str, ...]
    databases: tuple[str, ...]
    schemas: tuple[MartsSchema, ...]

    @property
    def title(self) -> str:
        kind = "workgroup" if self.connection.workgroup else "cluster"
        where = f"{kind} {self.connection.workgroup or self.connection.cluster}"
        return f"Rights of the identities of the Redshift connection `{self.name}` ({where})."


@click.command()
@click.argument("name", required=False, metavar="[PIPELINE|CONNECTION]")
@click.option(
    "--project",
    default=".",
    show_default=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of your Dagster project (with a pyproject.toml that has [tool.dg]), to read its YAML.",
)
@click.option("--database", "databases", multiple=True, help="Database made from an integration; instead of the YAML.")
@click.option("--marts-database", help="With --database: where the marts live.")
@click.option("--marts-schema", help="With --database: their schema.")
@click.option("--admin", metavar="USER", help="A user that is to create the databases; the namespace's admin may.")
@click.option("--watch", metavar="USER", help="The user that reads the integration views.")
@click.option("--marts", metavar="USER", help="The user that reads the replicated tables and makes the marts.")
@click.option("--iam", is_flag=True, help="Users are IAM identities: role/NAME, user/NAME or an ARN.")
def command(
    name: str | None,
    project: Path,
    databases: tuple[str, ...],
    marts_database: str | None,
    marts_schema: str | None,
    admin: str | None,
    watch: str | None,
    marts: str | None,
    iam: bool,
) -> None:
    """Print the SQL that gives the Redshift identities the rights they need, and no others.

    \b
    admin   creates and alters the databases made from integrations: a superuser,
            usually the namespace's own admin (`secret: namespace`)
    watch   reads the integration views; others than superusers see no rows there
    marts   reads the replicated tables, makes the marts and owns them

    Who they are stands in your `Connections` component; where that says `iam: true` without a role to assume, or a
    secret, only you know the user's name: give it with --watch and --marts. A database user of IAM is called
    IAMR:<role> or IAM:<user> and starts with no rights at all.

    \b
    zeroetl grants                                        every Redshift connection of the project here
    zeroetl grants shop --watch role/dagster --marts role/dagster --iam
    zeroetl grants --database shop_zetl --watch zeroetl_watch \\
        --marts-database dev --marts-schema shop_marts --marts zeroetl_marts
    """
    given = Identities(*(_user(option, user, iam) for option, user in _users(admin, watch, marts)))
    if databases:
        if name is not None:
            raise click.UsageError("--database takes the place of the YAML, so there is no pipeline to name")
        schemas = _schemas(marts_database, marts_schema, marts)
        if not any((admin, watch, marts)):
            raise click.UsageError("--database needs a user to grant rights to: --watch, --marts or --admin")
        _print("Rights of the Redshift identities.", given, databases, schemas)
        return
    if marts_database or marts_schema:
        raise click.UsageError("--marts-database and --marts-schema go with --database; the YAML says them otherwise")
    for number, wanted in enumerate(_chosen(project, name)):
        if number:
            click.echo()
        _print(wanted.title, _identities(wanted, given), wanted.databases, wanted.schemas)


def _print(title: str, users: Identities, databases: tuple[str, ...], schemas: tuple[MartsSchema, ...]) -> None:
    try:
        lines = list(script(title, users, steps(users, databases, schemas)))
    except ValueError as error:  # a name that is no identifier
        raise click.ClickException(str(error)) from None
    click.echo("\n".join(lines))


def _users(admin: str | None, watch: str | None, marts: str | None) -> Iterator[tuple[str, str | None]]:
    yield from (("--admin", admin), ("--watch", watch), ("--marts", marts))


def _user(option: str, user: str | None, iam: bool) -> str | None:
    if user is None or not iam:
        if user is not None and user.startswith("arn:"):
            raise click.UsageError(f"{option} is an ARN: add --iam, its database user has another name")
        return user
    try:
        return iam_user(user)
    except ValueError as error:
        raise click.UsageError(f"{option}: {error}") from None


def _schemas(database: str | None, schema: str | None, marts: str | None) -> tuple[MartsSchema, ...]:
    if (database is None) != (schema is None):
        raise click.UsageError("--marts-database and --marts-schema go together")
    if marts is not None and (database is None or schema is None):
        raise click.UsageError("--marts needs --marts-database and --marts-schema: where it makes its marts")
    return (MartsSchema(database, schema),) if database is not None and schema is not None else ()


def _chosen(project: Path, name: str | None) -> list[Wanted]:
    found = _project(project)
    chosen = [one for one in found if name is None or name == one.name or name in one.pipelines]
    if chosen:
        return chosen
    if not found:
        raise click.ClickException(
            f"no `Connections` component in {project.resolve()} declares a Redshift connection; "
            "declare one, or give --database and the users"
        )
    known = sorted({one.name for one in found} | {pipeline for one in found for pipeline in one.pipelines})
    raise click.ClickException(f"no pipeline and no Redshift connection is called {name!r}; known: {', '.join(known)}")


def _project(project: Path) -> list[Wanted]:
    """Every Redshift connection of the project. Raises `ClickException` for a folder or YAML that cannot be read."""
    import dagster as dg

    from zeroetl_dagster.components import Connections, RedshiftMarts, ZeroEtlIntegration
    from zeroetl_dagster.marts.redshift import grantee

    try:
        tree = dg.ComponentTree.for_project(project.resolve())
        connections = tree.get_all_components(Connections)
        pipelines = [one.settings for one in tree.get_all_components(ZeroEtlIntegration)]
        marts = [one.settings for one in tree.get_all_components(RedshiftMarts)]
    except Exception as error:
        raise click.ClickException(_why(error, project)) from None
    return [
        Wanted(
            name,
            redshift,
            component.settings.aws[redshift.aws],
            tuple(one.name for one in pipelines if one.redshift == name),
            tuple(one.target.database for one in pipelines if one.redshift == name),
            tuple(
                MartsSchema(one.database or redshift.database, one.schema_name, tuple(map(grantee, one.readers)))
                for one in marts
                if one.redshift == name
            ),
        )
        for component in connections
        for name, redshift in component.settings.redshift.items()
    ]


def _why(error: BaseException, project: Path) -> str:
    """Our own error where Dagster has wrapped it; otherwise Dagster's, with where it looked."""
    from zeroetl_dagster.settings.errors import SettingsError

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, SettingsError):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    where = project.resolve()
    return f"{where} cannot be read as a Dagster project ({error}). Give --project, or --database and the users"


def _identities(wanted: Wanted, given: Identities) -> Identities:
    return Identities(
        given.admin or _named(wanted, "admin"),
        given.watch or _named(wanted, "watch"),
        given.marts or _named(wanted, "marts"),
    )


def _named(wanted: Wanted, which: str) -> str | None:
    """The user of an identity; None when it is the namespace's admin, or the admin of this connection."""
    identity = getattr(wanted.connection, which)
    if identity is None or identity.secret == "namespace":
        return None
    if which != "admin" and identity == wanted.connection.admin:
        return None
    if identity.user is not None:
        return str(identity.user)
    if identity.iam and wanted.account.assume_role is not None:
        return iam_user(wanted.account.assume_role.role_arn)
    unknown = (
        f"`iam: true`, and the AWS account {wanted.connection.aws} assumes no role, so that the user depends on the "
        "credentials in force"
        if identity.iam
        else "a secret, in which the user's name stands"
    )
    example = f"--{which} role/NAME --iam" if identity.iam else f"--{which} USER"
    raise click.ClickException(f"connection {wanted.name}: identity `{which}` is {unknown}. Say whose it is: {example}")
