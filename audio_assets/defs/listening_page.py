"""`listening_page`: all of `audio_table` as a page to see and hear, made when somebody asks for it.

It is no part of the sensor's runs: a page of everything is made in one piece.
"""

import urllib.parse

import dagster as dg
from pydantic import Field

from audio_assets import settings
from audio_assets.defs.audio_table import audio_table
from audio_assets.defs.failures import known_errors
from audio_assets.defs.metadata import TAGS
from audio_assets.defs.resources import Bucket
from audio_assets.listening import Made, Slice, make_page
from audio_assets.listening.page import AUDIO, AUTO, NO_AUDIO
from audio_assets.listening.selection import ROWS, NoRowsError

FOLDER = "listening_page"


class PageConfig(dg.Config):
    """What the page shows. A page of some folders or days is made by `audio-assets report`."""

    audio: str = Field(
        default=AUTO,
        description="copy: lay copies into the page; link: play the objects where they lie; auto: copy up to"
        " 100 MB, link beyond; none: no audio.",
    )
    rows: int = Field(default=ROWS, ge=1, description="Rows at most; failed and least sure ones first.")


@dg.asset(
    deps=[audio_table],
    group_name="audio",
    kinds={"html"},
    tags=TAGS,
    owners=["team:speech"],
    code_version="1",
)
def listening_page(
    context: dg.AssetExecutionContext, config: PageConfig, bucket: Bucket
) -> dg.MaterializeResult:
    """One static page to see and hear all rows by: coverage, histograms, search, least sure texts first."""
    if config.audio not in AUDIO:
        raise dg.Failure(f"audio is one of {', '.join(AUDIO)}, not {config.audio!r}")
    with known_errors():
        bucket.check(context.log)
        table = bucket.audio_table
        try:
            made = make_page(
                table,
                bucket.source.store,
                table.store,
                f"{FOLDER}/",
                Slice(rows=config.rows),
                audio=config.audio,
                served_at=settings.LISTENING_AUDIO_URL.get(),
            )
        except NoRowsError as e:
            raise dg.Failure(description=f"{e}; materialise audio_table first") from e
        if made.audio == NO_AUDIO != config.audio:
            context.log.warning(
                "The page has no audio: browsers cannot reach the source from where the page lies. Set"
                " LISTENING_AUDIO_URL, or set audio to copy"
            )
        return dg.MaterializeResult(metadata=_describe(made, f"{table.store.uri}/{FOLDER}"))


def _describe(made: Made, uri: str) -> dict[str, dg.MetadataValue]:
    served_at = settings.LISTENING_PAGE_URL.get()
    page = dg.MetadataValue.url(f"{served_at.rstrip('/')}/index.html")
    if not served_at:
        # A browser follows no link of an HTTP page to a file, and none to S3.
        page = dg.MetadataValue.path(f"{uri}/index.html")
        if uri.startswith("file:"):
            page = dg.MetadataValue.path(urllib.parse.unquote(urllib.parse.urlsplit(page.value or "").path))
    return {
        "page": page,
        "dagster/row_count": dg.MetadataValue.int(made.rows),
        "rows_of_the_table": dg.MetadataValue.int(made.total),
        "audio": dg.MetadataValue.text(made.audio),
        "copies": dg.MetadataValue.int(made.clips),
        "files": dg.MetadataValue.int(made.files),
        "size_mb": dg.MetadataValue.float(round(made.size / 1e6, 2)),
        "dagster/uri": dg.MetadataValue.text(uri),
    }
