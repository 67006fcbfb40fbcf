"""What Dagster's assets and sensors work with: the bucket, the recogniser, the tokeniser.

Where plain code and settings meet. The values come from `audio_assets.settings`. An error of plain code names
its own argument, and is raised again here with the variable's name. Nothing else belongs here.
"""

import contextlib
import dataclasses
import functools
import logging
from typing import TYPE_CHECKING

import boto3
import dagster as dg
import pyarrow as pa
import pydantic
from dagster_aws.s3 import S3Resource

from audio_assets import schema, settings
from audio_assets.audio import check_formats
from audio_assets.daily import DailyTable
from audio_assets.defs.internals.instance_owner import claim
from audio_assets.defs.internals.run_launcher import record_worker
from audio_assets.errors import renaming
from audio_assets.sensor.event_queue import EventQueue
from audio_assets.source import AudioSource
from audio_assets.speech import Tokenising, Transcribing
from audio_assets.storage import ObjectStore, RetryPolicy
from audio_assets.table import Table
from audio_assets.tokenisation import code_version, load_tokeniser

if TYPE_CHECKING:
    from audio_assets.sensor.inventory_report import Report
    from audio_assets.transcription.recogniser import Recogniser
    from audio_assets.transcription.transcribe_options import TranscribeOptions


def _naming(**variables: settings.Variable) -> contextlib.AbstractContextManager[None]:
    """Raise errors of arguments in the words of the settings that their values come from."""
    return renaming({argument: variable.name for argument, variable in variables.items()})


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
    # Of the run that this bucket was set up for.
    _instance: dg.DagsterInstance | None = pydantic.PrivateAttr(default=None)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Record which process executes the run: each run works with the bucket, and sets it up first."""
        record_worker(context)
        if context.run:
            self._instance = context.instance

    def claim_for_run(self) -> None:
        """Refuse to work for this source and table where the instance serves others, before any harm.

        A sensor's tick and a sync claim the instance themselves.

        Raises:
            InstanceInUseError: it does.
        """
        if self._instance:
            claim(self._instance, self.source_uri, self.table_uri, for_a_run=True)

    @property
    def _account(self) -> tuple[str | None, ...]:
        """The arguments of `boto3.Session`."""
        return (
            self.s3.aws_access_key_id,
            self.s3.aws_secret_access_key,
            self.s3.aws_session_token,
            self.s3.region_name,
            None,
            self.s3.profile_name,
        )

    def _store(self, uri: str, setting: str = "") -> ObjectStore:
        retries = RetryPolicy(settings.S3_ATTEMPTS.get(), settings.S3_STALL_SECONDS.get())
        return _open_store(uri, setting, self._account, self.s3.endpoint_url, retries)

    @property
    def _audio(self) -> ObjectStore:
        return self._store(self.source_uri, "AUDIO_SOURCE_URI")

    @property
    def _tables(self) -> ObjectStore:
        inside = self.table_uri.startswith(f"{self.source_uri}/")
        setting = "AUDIO_TABLE_URI, inside AUDIO_SOURCE_URI" if inside else "AUDIO_TABLE_URI"
        return self._store(self.table_uri, setting)

    def check(self, log: logging.Logger) -> None:
        """See that tables can be written, and by this run, before any work is done for them.

        Raises:
            ArgumentError: AUDIO_FORMATS is wrong, or names what cannot be decoded here.
            InstanceInUseError: the run's instance serves another source or table.
            ValueError: a location or a setting of AWS is wrong.
            StorageError: they cannot.
        """
        check_formats()
        self.claim_for_run()
        tables = self._tables
        if not tables.conditional_writes:
            log.warning(
                f"{self.table_uri} ignores If-Match and If-None-Match (AUDIO_TABLE_URI): two runs on the same"
                " partition can overwrite each other there, until the sensor compares again"
            )
        elif not tables.conditional_deletes:
            log.warning(
                f"{self.table_uri} ignores If-Match when a file is deleted (AUDIO_TABLE_URI): partitions"
                " whose objects are gone keep a file without rows there"
            )

    @property
    def events(self) -> EventQueue | None:
        """The queue of the source's notifications, None where it sends none."""
        url = self.events_queue_url
        return _open_queue(url, self._account) if url else None

    @property
    def source(self) -> AudioSource:
        return AudioSource(self._audio, self._tables)

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
        return Report.open(self._store(f"s3://{name}"), key, self._audio)

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
        return self._table("audio_table", schema.AUDIO_TABLE)

    @property
    def audio_table_daily(self) -> DailyTable:
        return DailyTable(self._tables, schema.AUDIO_TABLE_DAILY, schema.of_day(schema.AUDIO_TABLE))


@functools.lru_cache(maxsize=8)
def _open_store(
    uri: str, setting: str, account: tuple[str | None, ...], endpoint: str | None, retries: RetryPolicy
) -> ObjectStore:
    """A store, kept for as long as the process lives: a client of boto3 takes a tenth of a second to make."""
    open_session = functools.partial(boto3.Session, *account)
    return ObjectStore(uri, open_session, name=setting, endpoint_url=endpoint, retries=retries)


@functools.lru_cache(maxsize=8)
def _open_queue(url: str, account: tuple[str | None, ...]) -> EventQueue:
    open_session = functools.partial(boto3.Session, *account)
    return EventQueue(url, open_session, setting="AUDIO_EVENTS_QUEUE_URL")


class Whisper(dg.ConfigurableResource):
    """The recogniser: Whisper, on the device that the machine has.

    Another recogniser takes its place by `resources={"whisper": MyRecogniser()}`. Such a resource need not
    derive from this one. The assets ask it for `transcribing(table) -> Transcribing`: the identity of its
    rows, and how to load a `Recogniser`. That call loads no weights. What looks for rows of other settings
    asks it for `expected_parts() -> tuple[str, ...]`.

    Attributes:
        model: WHISPER_MODEL, a name that `whisper.load_model` knows or the path of a checkpoint.
        device: WHISPER_DEVICE, `auto`, `cpu`, `cuda` or `cuda:1`.
        language: WHISPER_LANGUAGE, a code such as `en`, or `auto` to detect it for each object.
        batch_size: WHISPER_BATCH_SIZE, clips at a time, or `auto` for what the device holds.
        options: the texts of further settings, by their argument in `settings.WHISPER_OPTIONS`; what is
            missing has its default.
    """

    model: str
    device: str = "auto"
    language: str = "auto"
    batch_size: str = "auto"
    options: dict[str, str] = {}

    def transcribing(self, table: Table) -> Transcribing:
        """What makes transcripts; loads no weights.

        Raises:
            ValueError: a setting is wrong, or its checkpoint cannot be read.
        """
        from audio_assets.transcription import model_identity
        from audio_assets.transcription.options import resolve_device

        settings.WHISPER_BATCH_SIZE.check(self.batch_size)
        language = settings.WHISPER_LANGUAGE.check(self.language)
        with _naming(**_WHISPER):
            identity = model_identity(
                self.model, language=language, device=self.device, transcribe=self._transcribe_options()
            )
            on_gpu = resolve_device(self.device) != "cpu"
        return Transcribing(table, identity, self.load, on_gpu)

    def expected_parts(self) -> tuple[str, ...]:
        """What the rows of a run would say of their model, as far as that is known without torch and whisper.

        `transcription.identity.is_current` compares a row with it.

        Raises:
            ValueError: a setting is wrong, or its checkpoint cannot be read.
        """
        from audio_assets.transcription.identity import expected_parts

        with _naming(**_WHISPER):
            language = settings.WHISPER_LANGUAGE.check(self.language)
            return expected_parts(self.model, language, self._transcribe_options())

    def _transcribe_options(self) -> "TranscribeOptions":
        """The options of `whisper.transcribe`.

        Raises:
            ArgumentError: one is wrong.
        """
        from audio_assets.transcription.transcribe_options import TranscribeOptions

        texts = self.options.items()
        return TranscribeOptions(**{name: settings.WHISPER_OPTIONS[name].check(text) for name, text in texts})

    @property
    def code_version(self) -> str:
        """What shapes `transcripts`, as Dagster compares it; the settings' texts where they are wrong."""
        try:
            return " ".join(self.expected_parts())
        except Exception:  # It fails the runs; the code location shows why only if it loads.
            options = " ".join(f"{name}={text}" for name, text in self.options.items())
            return f"whisper {self.model} language={self.language} {options}".rstrip()

    def load(self) -> "Recogniser":
        """The model, kept for as long as the process lives.

        Raises:
            ValueError: a setting is wrong, the checkpoint cannot be read, or the model does not fit.
        """
        language = settings.WHISPER_LANGUAGE.check(self.language)
        batch_size = settings.WHISPER_BATCH_SIZE.check(self.batch_size)
        from audio_assets.transcription.identity import file_version

        with _naming(**_WHISPER):
            options = self._transcribe_options()
            files = [file_version(model) for model in (self.model, options.second_model) if model]
            key = (self.model, self.device, language, batch_size, options, *files)
            if key not in _loaded:
                # The earlier one goes first: two may not fit into the memory of the device.
                _loaded.clear()
                _loaded[key] = _load_whisper(self.model, self.device, language, batch_size, options)
            return _loaded[key]


_WHISPER = {
    "model": settings.WHISPER_MODEL,
    "device": settings.WHISPER_DEVICE,
    "language": settings.WHISPER_LANGUAGE,
    "batch_size": settings.WHISPER_BATCH_SIZE,
    **settings.WHISPER_OPTIONS,
}


def whisper_options() -> dict[str, str]:
    """What `Whisper.options` is by the environment: the texts of those settings that are set."""
    return {name: setting.text for name, setting in settings.WHISPER_OPTIONS.items() if setting.is_set}


_loaded: "dict[tuple[object, ...], Recogniser]" = {}
"""The recogniser of this process, by its settings and the version of its checkpoint's file."""


def _load_whisper(
    model: str, device: str, language: str | None, batch_size: int | None, options: "TranscribeOptions"
) -> "Recogniser":
    from audio_assets.transcription import Transcriber

    given = dataclasses.asdict(options)
    return Transcriber.load(model, device=device, language=language, batch_size=batch_size, **given)


class AudioTokeniser(dg.ConfigurableResource):
    """The tokeniser.

    Attributes:
        name: TOKENISER, `simulated`, a codec, or `package.module:function`.
        device: WHISPER_DEVICE, where a codec runs beside Whisper.
    """

    name: str = "simulated"
    device: str = "auto"

    def tokenising(self, table: Table) -> Tokenising:
        """What makes tokens; imports the module of a tokeniser of one's own, and loads no weights.

        Raises:
            ValueError: there is no such tokeniser, or a codec cannot do what its options say.
        """
        with _naming(name=settings.TOKENISER, layout=settings.TOKENISER):
            tokeniser = load_tokeniser(self.name, self.device)
            # Reads the configuration of a codec, so that what is wrong shows before the first object.
            _ = tokeniser.token_format
        return Tokenising(table, tokeniser)

    @property
    def identity(self) -> str:
        """What tokens of this tokeniser are known by. Of a codec it needs neither torch nor transformers.

        Raises:
            ValueError: there is no such tokeniser.
        """
        with _naming(name=settings.TOKENISER):
            return load_tokeniser(self.name, self.device).identity

    @property
    def code_version(self) -> str:
        """What shapes `tokens`, as Dagster compares it; imports nothing."""
        return code_version(self.name)


@dg.definitions
def resources() -> dg.Definitions:
    """The resources as the settings say. A wrong location is refused here, before Dagster shows it."""
    return dg.Definitions(
        resources={
            "bucket": Bucket(
                source_uri=settings.AUDIO_SOURCE_URI.get(),
                table_uri=settings.AUDIO_TABLE_URI.get(),
                inventory_manifest=settings.S3_INVENTORY_MANIFEST.get(),
                events_queue_url=settings.AUDIO_EVENTS_QUEUE_URL.get(),
                s3=S3Resource(),
            ),
            # What else is wrong fails the runs that need it, so that the UI can be opened.
            "whisper": Whisper(
                model=settings.WHISPER_MODEL.get(),
                device=settings.WHISPER_DEVICE.get(),
                language=settings.WHISPER_LANGUAGE.text,
                batch_size=settings.WHISPER_BATCH_SIZE.text,
                options=whisper_options(),
            ),
            "tokeniser": AudioTokeniser(name=settings.TOKENISER.get(), device=settings.WHISPER_DEVICE.get()),
        },
        # One process for a run: the model is loaded once, and a step costs no new interpreter.
        executor=dg.in_process_executor,
    )
