"""The Dagster project on a place, with an instance of its own."""

from collections.abc import Sequence

import dagster as dg
import pandas as pd

from audio_assets import read_table
from audio_assets.definitions import defs
from audio_assets.defs.resources import _open_store
from audio_assets.sensor.state import Cursor
from audio_assets_tests.support.places import Place


class Project:
    """The Dagster project on a place, with an instance of its own; plays the daemon's part."""

    def __init__(self, place: Place, instance: dg.DagsterInstance) -> None:
        self.place = place
        self.instance = instance
        self.cursor: str | None = None
        self.reload()

    def reload(self) -> None:
        """Read the settings again, as a restart does."""
        _open_store.cache_clear()
        self.repository = defs().get_repository_def()

    @property
    def partition_keys(self) -> list[str]:
        return list(self.instance.get_dynamic_partitions("folder_minute"))

    @property
    def scanning(self) -> bool:
        """Whether the last tick ran out of time before it had seen the whole bucket."""
        return Cursor.from_json(self.cursor).scanning

    def tick(self) -> list[dg.RunRequest]:
        """Evaluate the sensor and register what it asks for; gives the runs that it asks for."""
        requests = self.tick_of("new_s3_keys", self.cursor)
        self.cursor = self.evaluated.cursor
        return requests

    def tick_of(self, sensor: str, cursor: str | None = None) -> list[dg.RunRequest]:
        """As `tick`, of any sensor; what it said is then in `evaluated`."""
        with dg.build_sensor_context(
            instance=self.instance,
            instance_ref=self.instance.get_ref(),
            cursor=cursor,
            repository_def=self.repository,
            resources=self.repository.get_top_level_resources(),
        ) as context:
            self.evaluated = self.repository.get_sensor_def(sensor).evaluate_tick(context)
        apply_partition_requests(self.instance, self.evaluated.dynamic_partitions_requests)
        return list(self.evaluated.run_requests or [])

    def execute(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        tags = {
            **request.tags,
            "dagster/run_key": request.run_key or "",
            "dagster/sensor_name": "new_s3_keys",
        }
        return self._execute(tags, request.partition_key)

    def run(
        self, first: str, last: str | None = None, *, assets: list[str] | None = None
    ) -> dg.ExecuteInProcessResult:
        """Run `process_audio`, or some of its assets, for one partition or a range."""
        missing = [key for key in (first, last) if key and key not in self.partition_keys]
        self.instance.add_dynamic_partitions("folder_minute", missing)
        if last is None:
            return self._execute({}, first, assets)
        tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
        return self._execute(tags, None, assets)

    def _execute(
        self, tags: dict[str, str], key: str | None, assets: list[str] | None = None
    ) -> dg.ExecuteInProcessResult:
        return self.repository.get_job("process_audio").execute_in_process(
            instance=self.instance,
            tags=tags,
            partition_key=key,
            asset_selection=[dg.AssetKey(name) for name in assets] if assets else None,
            raise_on_error=False,
        )

    def catch_up(self) -> int:
        """Tick and run until the sensor is content; gives the number of runs, all of which succeed."""
        runs = 0
        for _ in range(10):
            requests = self.tick()
            if not requests and not self.scanning:
                return runs
            for request in requests:
                assert self.execute(request).success
                runs += 1
        raise AssertionError("the sensor keeps asking")

    def table(self, *slice_: object, **columns: object) -> pd.DataFrame:
        return read_table(*slice_, **columns)  # type: ignore[arg-type]


def apply_partition_requests(
    instance: dg.DagsterInstance,
    requests: Sequence[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest] | None,
) -> None:
    """Register and delete the partition keys that a tick asks for, as the daemon does."""
    for request in requests or []:
        if isinstance(request, dg.AddDynamicPartitionsRequest):
            instance.add_dynamic_partitions(request.partitions_def_name, list(request.partition_keys))
        else:
            for key in request.partition_keys:
                instance.delete_dynamic_partition(request.partitions_def_name, key)
