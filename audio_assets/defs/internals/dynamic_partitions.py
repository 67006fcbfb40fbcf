"""Deleting many partition keys at once.

Why private: `DagsterInstance.delete_dynamic_partition` takes one key, in a transaction of its own: 100,000
keys take minutes. The table is emptied here as that method does it, many keys to a statement.
"""

from collections.abc import Sequence

import dagster as dg
from dagster._core.storage.event_log.schema import DynamicPartitionsTable
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage

from audio_assets.defs.partitions import KEYS_AT_A_TIME, parts


def delete_partition_keys(instance: dg.DagsterInstance, partitions: str, keys: Sequence[str]) -> None:
    """Delete keys of a dynamic partitions definition: all of them or none, where the database is SQL.

    Args:
        partitions: the name of the definition.
        keys: those that are not registered are passed over.
    """
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        for key in keys:
            instance.delete_dynamic_partition(partitions, key)
        return
    with storage.index_transaction() as connection:
        for some in parts(keys, KEYS_AT_A_TIME):
            connection.execute(
                DynamicPartitionsTable.delete().where(
                    DynamicPartitionsTable.c.partitions_def_name == partitions,
                    DynamicPartitionsTable.c.partition.in_(some),
                )
            )
