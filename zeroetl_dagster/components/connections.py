"""The `Connections` component: named AWS accounts, Redshift and Athena connections as Dagster resources."""

from __future__ import annotations

import dagster as dg

from zeroetl_dagster.components.base import SettingsComponent
from zeroetl_dagster.connections.resources import build
from zeroetl_dagster.settings.connections import ConnectionsSettings
from zeroetl_dagster.settings.errors import SettingsError

_TEMPLATE = """\
type: zeroetl_dagster.components.Connections

attributes:
  # A name is a Dagster resource key: pipelines refer to it, and your own assets take it as a parameter.
  aws:
    production:
      region: ap-northeast-1
      # profile: analytics
      # assume_role: {role_arn: "arn:aws:iam::111122223333:role/zeroetl", external_id: "..."}
  redshift:
    warehouse:
      aws: production
      workgroup: analytics        # or `cluster:` for a provisioned one
      database: dev               # where marts live
      # Three identities, which may be one (`zeroetl grants` prints the rights they need):
      admin: {secret: namespace}  # the admin secret that AWS manages
      # watch: {iam: true}
      # marts: {iam: true}
  athena:                         # for snapshot exports and their marts; leave it out where there are none
    lake:
      aws: production
      workgroup: primary
      # output_location: s3://my-athena-results/   # where the workgroup names none
"""


class ConnectionsScaffolder(dg.Scaffolder):
    """Writes a commented defs.yaml."""

    def scaffold(self, request: dg.ScaffoldRequest) -> None:
        request.target_path.mkdir(parents=True, exist_ok=True)
        (request.target_path / "defs.yaml").write_text(_TEMPLATE)


@dg.scaffold_with(ConnectionsScaffolder)
class Connections(SettingsComponent[ConnectionsSettings]):
    """Names AWS accounts, Redshift and Athena connections; each name is a Dagster resource key."""

    settings_model = ConnectionsSettings

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Raises `SettingsError` for a name that another `Connections` component of the project declares too."""
        resources = build(self.settings)
        for other in context.component_tree.get_all_components(Connections):
            twice = sorted(set(resources) & set(build(other.settings))) if other is not self else []
            if twice:
                raise SettingsError(
                    f"{self.where}: `{twice[0]}` is declared in {other.where} too; a name is a Dagster resource key: "
                    "rename one"
                )
        return dg.Definitions(resources=dict(resources))
