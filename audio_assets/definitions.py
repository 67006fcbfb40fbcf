"""The Dagster code location: everything that `defs/` holds."""

import dagster as dg

import audio_assets.defs


@dg.definitions
def defs() -> dg.Definitions:
    return dg.load_defs(audio_assets.defs)
