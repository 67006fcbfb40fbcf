"""What a sync says in the end, and whether it is good."""

from audio_assets.cli.counts import Counts
from audio_assets.cli.rows import small_table
from audio_assets.cli.sync import Result
from audio_assets.cli.sync_display import Display
from audio_assets.schema import NOT_FLAC

EXAMPLES = 5


def summarise(
    display: Display, result: Result, counts: Counts, uri: str, seconds: float, *, strict: bool = False
) -> bool:
    """Say what was done and what the table is now.

    Args:
        uri: of the table.
        seconds: that the sync took.
        strict: whether a failed row is a failure.

    Returns:
        Whether bucket and table agree, as far as they can.
    """
    by_status = ", ".join(f"{rows:,} {status}" for status, rows in sorted(counts.statuses.items()))
    lines = [
        ("table", uri),
        ("rows", f"{counts.rows:,}" + (f" ({by_status})" if by_status else "")),
        ("hours of audio", f"{counts.audio_s / 3600:,.2f}"),
        ("runs", f"{result.runs:,}" + (f", {len(result.failed)} of them failed" if result.failed else "")),
        ("daily copy", f"{result.days:,} days compacted" if result.days else "up to date"),
        ("computed", f"{display.clips:,} clips, {display.audio_s:,.0f} s of audio, {display.rate:,.1f} s/s"),
        ("reused", f"{sum(display.reused.values()):,} clips of the partitions that were looked at"),
        ("took", f"{seconds:,.0f} s"),
    ]
    if result.open:
        lines.append(("left", f"{result.open:,} partitions whose minute is not over"))
    small_table(display.console, "Summary", ["", ""], lines)
    _warn(display, result, counts, strict=strict)
    return not result.differing and not (strict and counts.failed)


def _warn(display: Display, result: Result, counts: Counts, *, strict: bool) -> None:
    """Say what is not as it should be."""
    if result.differing:
        display.say(
            f"FAILED: {len(result.differing):,} partitions are not what the bucket says, such as"
            f" {min(result.differing)}; the failed runs say why: {' '.join(result.failed[-EXAMPLES:])}"
        )
    if counts.rows and counts.rows == counts.statuses[NOT_FLAC]:
        display.say(
            "WARNING: no object is of an audio format, so nothing is transcribed; AUDIO_FORMATS names them"
        )
    if counts.failed:
        said = "FAILED" if strict else "WARNING"
        display.say(f"{said}: {len(counts.failed):,} rows failed; audio-assets status says why")
        for row in counts.failed[:EXAMPLES]:
            display.say(f"  {row.key}: {row.error}")
