"""The only place that reads the environment: locations, Whisper, tokeniser, timing.

Each variable is documented in `.env.example`. Defaults are those of the demo.
"""

import datetime as dt
import functools
import logging
import pathlib
import re
from typing import TYPE_CHECKING

import boto3
import dagster as dg
import pyarrow as pa
from dagster_aws.s3 import S3Resource

from audio_assets import schema
from audio_assets.sensor.event_queue import EventQueue
from audio_assets.source import AudioSource
from audio_assets.speech import Tokenising, Transcribing
from audio_assets.storage import ObjectStore, RetryPolicy
from audio_assets.table import Table

if TYPE_CHECKING:
    from audio_assets.sensor.inventory_report import Report
    from audio_assets.transcription import Transcriber

PROJECT = pathlib.Path(__file__).parents[2]
AUDIO_TABLE = "audio_table"
DEMO_BUCKET = PROJECT / "demo_bucket"
DEMO_CHECKPOINT = pathlib.Path(__file__).parents[1] / "demo" / "checkpoint.pt"


def _setting(name: str, default: str) -> str:
    # An empty line in .env means "not set".
    return dg.EnvVar(name).get_value() or default


def _location(name: str, default: str) -> str:
    uri = _setting(name, default).rstrip("/")
    # Checked before Dagster shows it; what may be a secret in it is not repeated either.
    if not re.fullmatch(r"s3://[^/@?#]+(/.*)?|file://(localhost)?/.*", uri, re.DOTALL):
        raise ValueError(
            f"{name} is no location; it should read like s3://bucket/prefix or file:///folder, and"
            " credentials belong in AWS_PROFILE or AWS_ACCESS_KEY_ID and its like"
        )
    return uri


def _source_uri() -> str:
    return _location("AUDIO_SOURCE_URI", DEMO_BUCKET.as_uri())


def _table_uri() -> str:
    return _location("AUDIO_TABLE_URI", f"{_source_uri()}/output_parquet")


def audio_table() -> Table:
    """The table that `audio_assets.read_table` reads, as the environment names it."""
    store = ObjectStore(_table_uri(), setting="AUDIO_TABLE_URI", retries=_retries())
    return Table(store, AUDIO_TABLE, schema.AUDIO_TABLE)


def _retries() -> RetryPolicy:
    try:
        attempts, stall_s = int(_setting("S3_ATTEMPTS", "10")), float(_setting("S3_STALL_SECONDS", "60"))
        if attempts < 1 or stall_s <= 0:
            raise ValueError
    except ValueError:
        raise ValueError("S3_ATTEMPTS is a whole number from 1, S3_STALL_SECONDS a number above 0") from None
    return RetryPolicy(attempts, stall_s)


def settle_time() -> dt.timedelta:
    """How long after its end a minute counts as closed.

    Raises:
        ValueError: SETTLE_SECONDS is no number.
    """
    value = _setting("SETTLE_SECONDS", "60")
    try:
        return dt.timedelta(seconds=float(value))
    except (ValueError, OverflowError):
        raise ValueError(f"SETTLE_SECONDS is a number of seconds, not {value!r}") from None


def newest_first() -> bool:
    """Whether the newest audio is processed first.

    Raises:
        ValueError: BACKFILL_ORDER is neither `folder` nor `newest`.
    """
    value = _setting("BACKFILL_ORDER", "folder")
    if value not in ("folder", "newest"):
        raise ValueError(f"BACKFILL_ORDER is folder or newest, not {value!r}")
    return value == "newest"


class Bucket(dg.ConfigurableResource):
    """Where the audio lies and where the tables go.

    Attributes:
        source_uri: AUDIO_SOURCE_URI.
        table_uri: AUDIO_TABLE_URI.
        inventory_manifest: S3_INVENTORY_MANIFEST, empty where the bucket is listed.
        events_queue_url: AUDIO_EVENTS_QUEUE_URL, empty for none.
        s3: how S3 is reached; by default as every AWS client reads its environment.
    """

    source_uri: str
    table_uri: str
    inventory_manifest: str = ""
    events_queue_url: str = ""
    s3: dg.ResourceDependency[S3Resource]

    @property
    def _account(self) -> tuple[str | None, ...]:
        """The arguments of `boto3.Session`."""
        s3 = self.s3
        keys = s3.aws_access_key_id, s3.aws_secret_access_key, s3.aws_session_token
        return (*keys, s3.region_name, None, s3.profile_name)

    def _store(self, uri: str, setting: str = "") -> ObjectStore:
        return _open_store(uri, setting, self._account, self.s3.endpoint_url, _retries())

    @property
    def _tables(self) -> ObjectStore:
        inside = self.table_uri.startswith(f"{self.source_uri}/")
        setting = "AUDIO_TABLE_URI, inside AUDIO_SOURCE_URI" if inside else "AUDIO_TABLE_URI"
        return self._store(self.table_uri, setting)

    def check(self, log: logging.Logger) -> None:
        """See that tables can be written, before any work is done for them.

        Raises:
            ValueError: a location or a setting of AWS is wrong.
            StorageError: they cannot.
        """
        if not self._tables.conditional_writes:
            log.warning(
                f"{self.table_uri} ignores If-Match and If-None-Match (AUDIO_TABLE_URI): two runs on the same"
                " partition can overwrite each other there, until the sensor compares again"
            )

    @property
    def events(self) -> EventQueue | None:
        """The queue of the source's notifications, None where it sends none."""
        url = self.events_queue_url
        return _open_queue(url, self._account) if url else None

    @property
    def source(self) -> AudioSource:
        return AudioSource(self._store(self.source_uri), self._tables)

    @property
    def inventory_report(self) -> "Report":
        """The S3 Inventory report that `inventory_manifest` names.

        Raises:
            ValueError: it is no location, or its report is of no use here.
            StorageError: the manifest cannot be read.
        """
        from audio_assets.sensor.inventory_report import Report

        scheme, _, rest = self.inventory_manifest.partition("://")
        name, _, key = rest.partition("/")
        if scheme != "s3" or not name or not key:
            raise ValueError(f"{self.inventory_manifest!r} does not read like s3://bucket/…/manifest.json")
        return Report.open(self._store(f"s3://{name}"), key, self._store(self.source_uri))

    def _table(self, name: str, columns: pa.Schema) -> Table:
        return Table(self._tables, name, columns)

    @property
    def inventory(self) -> Table:
        return self._table("s3_inventory", schema.INVENTORY)

    @property
    def transcripts(self) -> Table:
        return self._table("transcripts", schema.TRANSCRIPTS)

    @property
    def tokens(self) -> Table:
        return self._table("tokens", schema.TOKENS)

    @property
    def audio_table(self) -> Table:
        return self._table(AUDIO_TABLE, schema.AUDIO_TABLE)


@functools.lru_cache(maxsize=8)
def _open_store(
    uri: str, setting: str, account: tuple[str | None, ...], endpoint: str | None, retries: RetryPolicy
) -> ObjectStore:
    """A store, kept for as long as the process lives: a client of boto3 takes a tenth of a second to make."""
    open_session = functools.partial(boto3.Session, *account)
    return ObjectStore(uri, open_session, setting=setting, endpoint_url=endpoint, retries=retries)


@functools.lru_cache(maxsize=8)
def _open_queue(url: str, account: tuple[str | None, ...]) -> EventQueue:
    open_session = functools.partial(boto3.Session, *account)
    return EventQueue(url, open_session, setting="AUDIO_EVENTS_QUEUE_URL")


class Whisper(dg.ConfigurableResource):
    """The recogniser, on the device that the machine has.

    Attributes:
        model: WHISPER_MODEL, a name that `whisper.load_model` knows or the path of a checkpoint.
        device: WHISPER_DEVICE, `auto`, `cpu`, `cuda` or `cuda:1`.
        language: WHISPER_LANGUAGE, a code such as `en`, or `auto` to detect it for each object.
        batch_size: WHISPER_BATCH_SIZE, clips at a time, or `auto` for what the device holds.
    """

    model: str
    device: str = "auto"
    language: str = "auto"
    batch_size: str = "auto"

    @property
    def _language(self) -> str | None:
        return None if self.language == "auto" else self.language

    @property
    def _batch_size(self) -> int | None:
        if self.batch_size == "auto":
            return None
        if not re.fullmatch(r"[1-9][0-9]{0,5}", self.batch_size):
            raise ValueError(f"WHISPER_BATCH_SIZE is a number of clips or auto, not {self.batch_size!r}")
        return int(self.batch_size)

    def transcribing(self, table: Table) -> Transcribing:
        """What makes transcripts; loads no weights.

        Raises:
            ValueError: a setting is wrong, or its checkpoint cannot be read.
        """
        from audio_assets.transcription import model_identity

        _ = self._batch_size
        identity = model_identity(self.model, language=self._language, device=self.device)
        return Transcribing(table, identity, self.load)

    def load(self) -> "Transcriber":
        """The model, kept for as long as the process lives.

        Raises:
            ValueError: a setting is wrong, or the checkpoint cannot be read.
        """
        return _load_whisper(self.model, self.device, self._language, self._batch_size)


@functools.lru_cache(maxsize=1)
def _load_whisper(model: str, device: str, language: str | None, batch_size: int | None) -> "Transcriber":
    from audio_assets.transcription import Transcriber

    return Transcriber.load(model, device=device, language=language, batch_size=batch_size)


class AudioTokeniser(dg.ConfigurableResource):
    """The tokeniser.

    Attributes:
        name: TOKENISER, `simulated` or `package.module:function`.
    """

    name: str = "simulated"

    def tokenising(self, table: Table) -> Tokenising:
        from audio_assets.tokenisation import load_tokeniser

        return Tokenising(table, self.name, functools.partial(load_tokeniser, self.name))


@dg.definitions
def resources() -> dg.Definitions:
    return dg.Definitions(
        resources={
            "bucket": Bucket(
                source_uri=_source_uri(),
                table_uri=_table_uri(),
                inventory_manifest=_setting("S3_INVENTORY_MANIFEST", ""),
                events_queue_url=_setting("AUDIO_EVENTS_QUEUE_URL", ""),
                s3=S3Resource(),
            ),
            "whisper": Whisper(
                model=_setting("WHISPER_MODEL", str(DEMO_CHECKPOINT)),
                device=_setting("WHISPER_DEVICE", "auto"),
                language=_setting("WHISPER_LANGUAGE", "auto"),
                batch_size=_setting("WHISPER_BATCH_SIZE", "auto"),
            ),
            "tokeniser": AudioTokeniser(name=_setting("TOKENISER", "simulated")),
        },
        # One process for a run: the model is loaded once, and a step costs no new interpreter.
        executor=dg.in_process_executor,
    )
