"""`python -m zeroetl_dagster.cli`, for callers that have an interpreter and no PATH."""

from zeroetl_dagster.cli import main

main()
