"""The Dagster code location: everything that `defs/` holds."""

import pathlib

import dagster as dg


@dg.definitions
def defs() -> dg.Definitions:
    return dg.load_from_defs_folder(path_within_project=pathlib.Path(__file__).parent)
