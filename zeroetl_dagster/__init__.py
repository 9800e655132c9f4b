"""Orchestrates AWS zero-ETL integrations and RDS snapshot analytics with Dagster.

Rooms: `settings` (typed configuration), `connections` (AWS, Redshift, Athena), `replication` (the zero-ETL path),
`exports` (the snapshot path), `marts` (SQL models), `components` (what a user writes in YAML), `local` (the embedded
AWS), `cli`. Nothing is wired or connected at import time.
"""
