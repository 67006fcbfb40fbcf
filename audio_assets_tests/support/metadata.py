"""What a run says of its work, as a test compares it."""

from collections.abc import Mapping

import dagster as dg


def number(metadata: Mapping[str, dg.MetadataValue], name: str) -> int:
    """The whole number under a name in an event's metadata."""
    value = metadata[name].value
    assert isinstance(value, int), f"{name} is {value!r}"
    return value
