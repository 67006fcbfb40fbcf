"""Three ways to cut an asset by folder and minute; what `benchmarks.partitions` measures.

A: a grid of dynamic folders and time-window minutes. B: a grid of dynamic folders and dynamic minutes. C: one
dynamic set of the folder/minute pairs that exist, which is what `audio_assets` uses.
"""

import dagster as dg

DAYS = 90
START = "2023-01-01-00:00"
END = "2023-04-01-00:00"
FOLDERS = "folders"
MINUTES = "minutes"
PAIRS = "pairs"

DESIGNS = {
    "A": dg.MultiPartitionsDefinition(
        {
            "folder": dg.DynamicPartitionsDefinition(name=FOLDERS),
            "minute": dg.TimeWindowPartitionsDefinition(
                cron_schedule="* * * * *", start=START, end=END, fmt="%Y-%m-%d-%H:%M"
            ),
        }
    ),
    "B": dg.MultiPartitionsDefinition(
        {
            "folder": dg.DynamicPartitionsDefinition(name=FOLDERS),
            "minute": dg.DynamicPartitionsDefinition(name=MINUTES),
        }
    ),
    "C": dg.DynamicPartitionsDefinition(name=PAIRS),
}


def _asset(design: str) -> dg.AssetsDefinition:
    @dg.asset(name=f"design_{design}", partitions_def=DESIGNS[design])
    def asset() -> None: ...

    return asset


defs = dg.Definitions(assets=[_asset(design) for design in DESIGNS])
"""What the measured queries are answered from."""
