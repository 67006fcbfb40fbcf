"""The names of Dagster's tags on runs and on observations, and the prefix of those that the UI does not show.

Why private: Dagster 1.13 documents what these tags do and exports none of the constants. A constant that a
newer version moves or renames fails at import, where a copied text would match nothing, in silence.
"""

from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    HIDDEN_TAG_PREFIX,
    PARTITION_NAME_TAG,
    WILL_RETRY_TAG,
)

__all__ = [
    "ASSET_PARTITION_RANGE_END_TAG",
    "ASSET_PARTITION_RANGE_START_TAG",
    "DATA_VERSION_TAG",
    "HIDDEN_TAG_PREFIX",
    "PARTITION_NAME_TAG",
    "WILL_RETRY_TAG",
]
