"""Athena's engine: SQL as Trino understands it, answered by DuckDB from files in S3 and tables in Glue.

The engine is DuckDB, not Trino: syntax and semantics are translated (`translate.py`), and where a statement cannot be
answered as Trino would, it fails by name instead of giving DuckDB's answer.
"""
