"""The control plane put together: the services that are the heart of zero-ETL, their steps, metrics and resumption.

`local/server.py` builds it, adds the services of the other files (S3, IAM, Glue, ...), serves them all and stops it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from zeroetl_dagster.local.aws.cloudwatch import CloudWatch, IntegrationMetrics
from zeroetl_dagster.local.aws.cloudwatch_metrics import MetricTable
from zeroetl_dagster.local.aws.rds import Rds
from zeroetl_dagster.local.aws.rds_integrations import Integrations
from zeroetl_dagster.local.aws.redshift import Redshift
from zeroetl_dagster.local.aws.redshift_logins import Logins
from zeroetl_dagster.local.aws.redshift_serverless import RedshiftServerless
from zeroetl_dagster.local.aws.transitions import Transitions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zeroetl_dagster.local.aws.service import Service
    from zeroetl_dagster.local.world import World


class ControlPlane:
    """RDS, Redshift, Redshift Serverless and CloudWatch of one embedded AWS."""

    def __init__(self, world: World) -> None:
        self.transitions = Transitions(world.store)
        self._metrics = MetricTable(world.store.path)
        self.rds = Rds(world, self.transitions)
        logins = Logins(world)
        self.redshift = Redshift(world, self.transitions, logins, self.rds.target_changed)
        self.serverless = RedshiftServerless(world, self.transitions, logins, self.rds.target_changed)
        self.cloudwatch = CloudWatch(world, self._metrics)
        self.integration_metrics = IntegrationMetrics(world, self._metrics, Integrations(world.store))

    @property
    def services(self) -> Mapping[str, Service]:
        """By the name in the credential scope, for `app.build_app`."""
        return {
            "rds": self.rds,
            "redshift": self.redshift,
            "redshift-serverless": self.serverless,
            "monitoring": self.cloudwatch,
        }

    def on_health(self, integration_id: str, status: str, errors: Iterable[tuple[str, str]]) -> None:
        """The replicator's report on a live integration (see `IntegrationOperations.on_health`)."""
        self.rds.on_health(integration_id, status, errors)

    def resume(self) -> None:
        """Bring back what ran when the last process ended, then go on with the steps it had planned.

        Servers and endpoints first, so that a planned step finds them; the endpoint may be served before that.
        """
        self.rds.resume_servers()
        self.serverless.resume()
        self.redshift.resume()
        self.transitions.start()
        self.integration_metrics.start()
        self.rds.resume_snapshots()
        self.rds.resume_exports()

    def stop(self) -> None:
        """End threads and listeners; PostgreSQL servers and the warehouse are stopped by whoever started them."""
        self.integration_metrics.stop()
        self.rds.stop_exports()
        self.rds.stop_snapshots()
        self.transitions.stop()
        self.rds.engines.close()
        self._metrics.close()
