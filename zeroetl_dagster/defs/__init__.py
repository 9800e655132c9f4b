"""The shipped TICKIT pipeline, written as a user would write theirs: YAML and SQL, one folder a component."""
