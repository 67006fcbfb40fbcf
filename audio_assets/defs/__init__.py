"""What Dagster sees, one short file for each asset or automation, in the order in which data flows."""
