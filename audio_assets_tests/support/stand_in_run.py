"""A run in a process of its own, with the stand-in: `python -m audio_assets_tests.support.stand_in_run`.

    HOME FIRST LAST SECONDS

HOME is that of the instance, the partitions go from FIRST to LAST, and a clip takes SECONDS. It makes
transcripts and tokens; its exit code is 0, or 1 where the run failed.
"""

import sys

import dagster as dg

from audio_assets_tests.support.stand_in import StandInWhisper, definitions


def main(home: str, first: str, last: str, seconds: str) -> None:
    job = definitions(StandInWhisper(seconds=float(seconds))).get_repository_def().get_job("process_audio")
    with dg.DagsterInstance.from_config(home) as instance:
        made = job.execute_in_process(
            instance=instance,
            tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last},
            asset_selection=[dg.AssetKey(name) for name in ("transcripts", "tokens")],
            raise_on_error=False,
        )
    sys.exit(not made.success)


if __name__ == "__main__":
    main(*sys.argv[1:])
