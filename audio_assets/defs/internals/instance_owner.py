"""Which source and table an instance serves: one at a time.

Asset keys and partition keys are those of the whole instance. Two code locations with different sources would
delete each other's partition keys at each tick, for ever, and a run of the one would record over the other's
partitions what it has made.

Why private: Dagster has no public place for a note of one's own on an instance. The daemons keep theirs in
the cursor values of the run storage, and so does this.
"""

import json
import time

import dagster as dg

from audio_assets.errors import InstanceInUseError
from audio_assets.process_identity import is_alive, this_process

_NAME = "audio_assets/serves"
# A process of another host cannot be asked. It ticks every 30 seconds as long as it lives.
SILENT_S = 300


def claim(instance: dg.DagsterInstance, source: str, table: str, *, for_a_run: bool = False) -> None:
    """Note that this process serves a source and a table with this instance.

    A process that has ended holds nothing, so that the places may change between two starts. Nor does a
    process hold anything against itself.

    Args:
        for_a_run: this process ends with its run, so that the note of one that goes on living stays.

    Raises:
        InstanceInUseError: a process that lives serves another source or table with it.
    """
    storage = instance.run_storage
    held = json.loads(storage.get_cursor_values({_NAME}).get(_NAME, "null"))
    mine = {"source": source, "table": table}
    if held is not None and not _lives(held):
        held = None
    if held is not None and {name: held[name] for name in mine} != mine:
        raise InstanceInUseError(
            f"this Dagster instance serves {held['source']} with its table {held['table']} at the moment, so"
            f" it cannot serve {source} with {table}: stop the process that serves it, or give this one a"
            " DAGSTER_HOME of its own"
        )
    if held is None or not for_a_run:
        storage.set_cursor_values({_NAME: json.dumps({**mine, "process": this_process(), "at": time.time()})})


def _lives(held: dict[str, object]) -> bool:
    """Whether another process holds the instance."""
    if held["process"] == this_process():
        return False
    alive = is_alive(str(held["process"]))
    return time.time() - float(str(held["at"])) < SILENT_S if alive is None else alive
