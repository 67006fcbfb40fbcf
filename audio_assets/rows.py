"""What the rows mean: objects as rows of `s3_inventory`, and the join that gives the rows of `audio_table`.

Columns and types are declared in `schema`; how rows are stored is the business of `table`.
"""

import pyarrow as pa

from audio_assets.errors import MissingInputError
from audio_assets.schema import AUDIO_TABLE, FAILED, INVENTORY, NOT_FLAC, OK
from audio_assets.storage import ObjectInfo


def inventory_objects(rows: pa.Table) -> list[ObjectInfo]:
    """The objects of a partition.

    Args:
        rows: with at least the columns of `schema.INVENTORY`, as `s3_inventory` and `audio_table` have them.
    """
    columns = (rows[name].to_pylist() for name in ("Key", "ETag", "Size", "LastModified"))
    return [ObjectInfo(*row) for row in zip(*columns, strict=True)]


def inventory_rows(objects: list[ObjectInfo]) -> pa.Table:
    """The `s3_inventory` rows of a partition's objects, in the order of their keys."""
    rows = [
        {"Key": o.key, "ETag": o.etag, "Size": o.size, "LastModified": o.last_modified}
        for o in sorted(objects, key=lambda o: o.key)
    ]
    return pa.Table.from_pylist(rows, INVENTORY)


def audio_rows(inventory: pa.Table, transcripts: pa.Table, tokens: pa.Table) -> pa.Table:
    """Join a partition's three tables on (Key, ETag).

    Args:
        inventory: rows of `schema.INVENTORY`; each becomes one row, in its order.
        transcripts: rows of `schema.TRANSCRIPTS`.
        tokens: rows of `schema.TOKENS`.

    Returns:
        Rows of `schema.AUDIO_TABLE`. An object is `ok` only if it is so in both tables.

    Raises:
        MissingInputError: an object of the inventory has no transcript or no tokens of its ETag.
    """
    # Arrow's own join takes no list columns, and tokens are lists.
    heard = transcripts.take(_rows_of(inventory, transcripts, "transcripts"))
    tokenised = tokens.take(_rows_of(inventory, tokens, "tokens"))
    columns = {name: inventory[name] for name in inventory.schema.names}
    for table in (tokenised, heard):
        columns |= {name: table[name] for name in table.schema.names if name not in columns}
    statuses = zip(heard["status"].to_pylist(), tokenised["status"].to_pylist(), strict=True)
    columns["status"] = pa.array([_worst(pair) for pair in statuses], pa.string())
    errors = zip(heard["error"].to_pylist(), tokenised["error"].to_pylist(), strict=True)
    columns["error"] = pa.array([_both(pair) for pair in errors], pa.string())
    return pa.table({name: columns[name] for name in AUDIO_TABLE.names}).cast(AUDIO_TABLE)


def _rows_of(inventory: pa.Table, other: pa.Table, name: str) -> pa.Array:
    at = {pair: i for i, pair in enumerate(identities(other))}
    wanted = identities(inventory)
    if missing := [key for key, etag in wanted if (key, etag) not in at]:
        raise MissingInputError(
            f"{name} lacks {len(missing)} of {len(wanted)} objects as the inventory has them now, "
            f"{missing[0]!r} among them; materialise {name} first"
        )
    return pa.array([at[pair] for pair in wanted], pa.int64())


def identities(rows: pa.Table) -> list[tuple[str, str]]:
    """The (Key, ETag) pair of each row."""
    return list(zip(rows["Key"].to_pylist(), rows["ETag"].to_pylist(), strict=True))


def _worst(statuses: tuple[str, str]) -> str:
    return next(status for status in (FAILED, NOT_FLAC, OK) if status in statuses)


def _both(errors: tuple[str | None, str | None]) -> str | None:
    """Two reasons as one; an object that cannot be read has the same reason twice."""
    return "; ".join(dict.fromkeys(filter(None, errors))) or None
