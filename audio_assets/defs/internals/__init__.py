"""All that touches private names of Dagster."""
