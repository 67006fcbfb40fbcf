"""The Dagster code location: everything that `defs/` holds."""

import pathlib
import warnings

import dagster as dg

# The owners of jobs are in beta in Dagster 1.13, which warns of that at every start.
warnings.filterwarnings("ignore", "Parameter `owners`", dg.BetaWarning)


@dg.definitions
def defs() -> dg.Definitions:
    return dg.load_from_defs_folder(path_within_project=pathlib.Path(__file__).parent)
