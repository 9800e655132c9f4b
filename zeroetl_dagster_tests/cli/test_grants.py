"""`zeroetl grants` on projects written as a user writes them, and every refusal."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from zeroetl_dagster.cli import main

PROJECT = """\
[tool.dg]
directory_type = "project"
[tool.dg.project]
root_module = "{name}"
"""
CONNECTIONS = """\
type: zeroetl_dagster.components.Connections
attributes:
  aws:
    prod: {region: eu-central-1, assume_role: {role_arn: "arn:aws:iam::123456789012:role/etl/dagster"}}
    here: {region: eu-central-1}
  redshift:
    warehouse:
      {aws: prod, workgroup: analytics, database: dev, watch: {user: eye, password_env: EYE}, marts: {iam: true}}
    other: {aws: here, cluster: rs1, marts: {iam: true}, admin: {user: root, password_env: ROOT}}
"""
PIPELINE = """\
type: zeroetl_dagster.components.ZeroEtlIntegration
attributes:
  name: shop
  redshift: warehouse
  source: {engine: aurora-postgresql, cluster: c, database: shop}
  target: {database: shop_zetl}
  data_filter: "include: shop.public.*"
  tables: [public.orders]
"""
MARTS = """\
type: zeroetl_dagster.components.RedshiftMarts
attributes:
  {name: shop_marts, redshift: warehouse, schema: shop_marts, pipelines: {shop: shop_zetl}, readers: ["role:analyst"]}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    name = f"project_{tmp_path.name}"  # a module of its own: imported modules stay
    (tmp_path / "pyproject.toml").write_text(PROJECT.format(name=name))
    for part, text in {"connections": CONNECTIONS, "shop": PIPELINE, "shop_marts": MARTS}.items():
        folder = tmp_path / name / "defs" / part
        folder.mkdir(parents=True)
        (folder / "defs.yaml").write_text(text)
    (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / name / "defs" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def grants(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["grants", *arguments])


def test_the_projects_own_yaml_says_who_and_what(project: Path) -> None:
    found = grants("shop", "--project", str(project))
    assert found.exit_code == 0, found.output
    printed = [line for line in found.output.splitlines() if line and not line.startswith("--")]
    assert printed == [
        'GRANT ROLE sys:monitor TO "eye";',
        'CREATE SCHEMA IF NOT EXISTS "shop_marts";',
        'GRANT USAGE, CREATE ON SCHEMA "shop_marts" TO "IAMR:dagster";',
        'GRANT USAGE ON SCHEMA "shop_marts" TO ROLE "analyst";',
        'GRANT USAGE FOR SCHEMAS IN DATABASE "shop_zetl" TO "IAMR:dagster";',
        'GRANT SELECT FOR TABLES IN DATABASE "shop_zetl" TO "IAMR:dagster";',
    ]
    assert "connection `warehouse` (workgroup analytics)" in found.output
    assert grants("warehouse", "--project", str(project)).output == found.output


def test_a_user_that_the_yaml_does_not_tell_is_asked_for(project: Path) -> None:
    found = grants("other", "--project", str(project))
    assert found.exit_code == 1
    assert "connection other: identity `marts` is `iam: true`, and the AWS account here assumes no role" in found.output
    assert "--marts role/NAME --iam" in found.output
    found = grants("other", "--project", str(project), "--marts", "role/mine", "--iam")
    assert 'ALTER USER "root" CREATEDB CREATEUSER;' in found.output and "(cluster rs1)" in found.output


def test_a_secrets_user_is_asked_for(project: Path) -> None:
    file = next(project.glob("*/defs/connections/defs.yaml"))
    secret = "{secret: arn:aws:secretsmanager:eu-central-1:123456789012:secret:x}"
    file.write_text(CONNECTIONS.replace("{user: eye, password_env: EYE}", secret))
    found = grants("shop", "--project", str(project))
    assert found.exit_code == 1
    assert (
        "identity `watch` is a secret, in which the user's name stands. Say whose it is: --watch USER" in found.output
    )
    assert 'GRANT ROLE sys:monitor TO "eye";' in grants("shop", "--project", str(project), "--watch", "eye").output


def test_everything_can_be_said_by_options() -> None:
    place = ["--marts-database", "dev", "--marts-schema", "m"]
    found = grants("--database", "zetl", "--watch", "w", "--marts", "user/ann", "--iam", *place)
    assert found.exit_code == 2 and "--watch: 'w' names no IAM identity" in found.output
    found = grants("--database", "zetl", "--marts", "user/ann", "--iam", *place)
    assert 'GRANT SELECT FOR TABLES IN DATABASE "zetl" TO "IAM:ann";' in found.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--database", "z"], "--database needs a user to grant rights to: --watch, --marts or --admin"),
        (["--database", "z", "--marts", "m"], "--marts needs --marts-database and --marts-schema"),
        (["--database", "z", "--marts-schema", "s", "--watch", "w"], "--marts-database and --marts-schema go together"),
        (["--marts-schema", "s", "--marts-database", "d"], "go with --database; the YAML says them otherwise"),
        (["shop", "--database", "z", "--watch", "w"], "so there is no pipeline to name"),
        (["--database", "z", "--watch", "arn:aws:iam::1:role/x"], "--watch is an ARN: add --iam"),
        (["--nonsense"], "No such option"),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments: list[str], said: str) -> None:
    found = grants(*arguments)
    assert found.exit_code == 2 and said in found.output


def test_a_name_that_no_redshift_takes_is_refused() -> None:
    found = grants("--database", "z", "--watch", "w" * 128)
    assert found.exit_code == 1 and "has more than 127 bytes; Redshift takes no more" in found.output


def test_an_unknown_pipeline_is_told_with_the_known_ones(project: Path) -> None:
    found = grants("nope", "--project", str(project))
    assert found.exit_code == 1
    assert "no pipeline and no Redshift connection is called 'nope'; known: other, shop, warehouse" in found.output


def test_a_folder_without_a_project_is_told(tmp_path: Path) -> None:
    found = grants("--project", str(tmp_path))
    assert found.exit_code == 1 and f"{tmp_path} cannot be read as a Dagster project" in found.output
    assert "Give --project, or --database and the users" in found.output


def test_a_project_without_connections_is_told(project: Path) -> None:
    next(project.glob("*/defs/connections/defs.yaml")).unlink()
    found = grants("--project", str(project))
    assert found.exit_code == 1 and "declares a Redshift connection; declare one, or give --database" in found.output


def test_a_wrong_setting_is_told_as_it_is_at_load(project: Path) -> None:
    file = next(project.glob("*/defs/connections/defs.yaml"))
    file.write_text(CONNECTIONS.replace("workgroup: analytics", "workgruop: analytics"))
    found = grants("--project", str(project))
    assert found.exit_code == 1 and "`redshift.warehouse.workgruop` is not known here (did you mean" in found.output
    assert str(file) in found.output
