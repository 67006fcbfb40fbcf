"""Every variable that the project reads from the environment: its name, default, check and meaning.

README.md's table and `.env.example` are rendered from `VARIABLES`, so a new variable is declared here and
nowhere else. `python -m audio_assets.settings` writes both anew.

What a value is used for does not belong here: `defs.resources` gives Dagster's resources their values, and
`audio_assets.read_table` finds the table by them.
"""

import dataclasses
import datetime as dt
import functools
import json
import math
import os
import pathlib
import re
import shutil
import textwrap
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import dotenv

from audio_assets.errors import ArgumentError
from audio_assets.storage import BACKENDS
from audio_assets.storage.obstore_io import is_plain

T = TypeVar("T")

PROJECT = pathlib.Path(__file__).parents[1]
DEMO_BUCKET = PROJECT / "demo_bucket"
DEMO_CHECKPOINT = pathlib.Path(__file__).with_name("demo") / "checkpoint.pt"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variable:
    """A variable that changes what the project does, whoever reads it: this project, boto3 or Dagster.

    Attributes:
        name: in the environment.
        meaning: sentences in Markdown, for README.md and `.env.example`.
        default_words: the default in Markdown, empty where there is none.
        example: the value in `.env.example`, None where the variable does not belong there.
        secret: whether the value is or may hold a secret. It is then shown nowhere.
    """

    name: str
    meaning: str
    default_words: str = ""
    example: str | None = ""
    secret: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting(Variable, Generic[T]):
    """A variable that this project reads itself.

    Attributes:
        default: as somebody would write it into the environment; a function where it depends
            on another setting.
        parse: text -> value; raises ValueError or OverflowError where the text is wrong.
        rule: what every right value is, such as `is a number of seconds`. It follows the name in errors.
    """

    default: str | Callable[[], str] = ""
    parse: Callable[[str], T]
    rule: str = ""

    def set(self, text: str) -> None:
        """Set it for this process and those that it starts; an empty text means "not set"."""
        os.environ[self.name] = text

    @property
    def is_set(self) -> bool:
        """Whether the environment says more than the default."""
        return bool(os.environ.get(self.name))

    @property
    def text(self) -> str:
        """The text in the environment, or the default. An empty line in `.env` means "not set"."""
        default = self.default if isinstance(self.default, str) else self.default()
        return os.environ.get(self.name) or default

    def get(self) -> T:
        """The value.

        Raises:
            ArgumentError: the text in the environment is wrong.
        """
        return self.check(self.text)

    def check(self, text: str) -> T:
        """The value that a text stands for.

        Raises:
            ArgumentError: it stands for none. The message names the variable, and repeats the text unless
                that may be secret.
        """
        try:
            return self.parse(text)
        except (ValueError, OverflowError):
            shown = "" if self.secret else f", not {text!r}"
            raise ArgumentError(self.name, f" {self.rule}{shown}") from None


# --- how texts are read ---------------------------------------------------------------------------------


def _location(text: str) -> str:
    uri = text.rstrip("/")
    scheme = uri.partition("://")[0]
    # Credentials may be in front of the host, and a signature in a query.
    host = {"s3": r"[^/@?#]+(/|\Z)", "file": "(localhost)?/"}.get(scheme, r"[^/@?#]*(/|\Z)")
    if scheme not in BACKENDS or not re.match(f"{re.escape(scheme)}://{host}", uri):
        raise ValueError
    # A folder without a name, as in s3://bucket/a//b, can hold audio, but is no place to start from.
    if scheme == "s3" and not is_plain(text.removesuffix("/").partition("://")[2]):
        raise ValueError
    return uri


def _attempts(text: str) -> int:
    if (attempts := int(text)) < 1:
        raise ValueError
    return attempts


def _seconds_above_0(text: str) -> float:
    if not 0 < (seconds := float(text)) < math.inf:
        raise ValueError
    return seconds


def _language(text: str) -> str | None:
    return None if text == "auto" else text


AUDIO_FORMAT_NAMES = ("flac", "wav", "mp3", "ogg", "opus", "m4a", "aac", "webm")


@functools.cache
def _formats(text: str) -> frozenset[str]:
    names = frozenset(name.strip().lower().removeprefix(".") for name in text.split(","))
    if not names <= set(AUDIO_FORMAT_NAMES):
        raise ValueError
    return names


def _batch_size(text: str) -> int | None:
    if text == "auto":
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,5}", text):
        raise ValueError
    return int(text)


def _texts(text: str) -> int | None:
    if text == "none":
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,2}", text):
        raise ValueError
    return int(text)


def _patience(text: str) -> float | None:
    if text == "none":
        return None
    if not 0 < (patience := float(text)) < 1000:
        raise ValueError
    return patience


def _true_or_false(text: str) -> bool:
    return _one_of("true", "false")(text) == "true"


def _temperatures(text: str) -> tuple[float, ...]:
    temperatures = tuple(float(part) for part in text.split(","))
    if not all(0 <= temperature <= 1 for temperature in temperatures):
        raise ValueError
    return temperatures


def _threshold(text: str) -> float | None:
    if text == "none":
        return None
    if not math.isfinite(threshold := float(text)):
        raise ValueError
    return threshold


def _silence(text: str) -> float | None:
    return None if text == "none" else _seconds_above_0(text)


def _settle_time(text: str) -> dt.timedelta:
    return dt.timedelta(seconds=float(text))


def _interval(text: str) -> dt.timedelta:
    if not 0 <= (minutes := float(text)) < 1_000_000:
        raise ValueError
    return dt.timedelta(minutes=minutes)


def _ray_address(text: str) -> str:
    # `ray://` is Ray's client, which gives no actor to wait for.
    if text not in ("", "auto", "local") and not re.fullmatch(r"[^\s/@]+:[0-9]{1,5}", text):
        raise ValueError
    return text


def _part(text: str) -> float:
    """0, a part of one, or a whole number: Ray gives no one and a half."""
    number = float(text)
    if not 0 <= number < 1000 or (number > 1 and number != int(number)):
        raise ValueError
    return number


def _number_or_auto(text: str) -> int | None:
    return None if text == "auto" else _at_least_one(text)


def _at_least_one(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        raise ValueError
    return int(text)


def _at_least_zero(text: str) -> int:
    return 0 if text == "0" else _at_least_one(text)


def _minutes(text: str) -> float:
    if not 0 < (minutes := float(text)) < 100_000:
        raise ValueError
    return minutes


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError
        return text

    return parse


def _days(text: str) -> float:
    if not 0 <= (days := float(text)) < 100_000:
        raise ValueError
    return days


def _address(text: str) -> str:
    if text and not re.match(r"https?://[^/\s]+\S*\Z", text):
        raise ValueError
    return text


def _json_object(text: str) -> dict[str, Any] | None:
    if not text:
        return None
    if not isinstance(found := json.loads(text), dict):
        raise ValueError
    return found


# --- the variables --------------------------------------------------------------------------------------

_NO_LOCATION = (
    "is no location; it should read like s3://bucket/prefix or file:///folder, with a single / between"
    " folders, and credentials belong in AWS_PROFILE or AWS_ACCESS_KEY_ID and its like"
)

AUDIO_SOURCE_URI = Setting(
    name="AUDIO_SOURCE_URI",
    meaning="What to inventory: `s3://bucket/prefix`, or a local folder as `file:///folder`.",
    default=DEMO_BUCKET.as_uri(),
    default_words="the demo's folder `demo_bucket/`",
    example="s3://my-bucket/wav48_silence_trimmed",
    # It may hold credentials by mistake.
    secret=True,
    parse=_location,
    rule=_NO_LOCATION,
)
AUDIO_TABLE_URI = Setting(
    name="AUDIO_TABLE_URI",
    meaning="Where the tables go: `s3://bucket/prefix` or `file:///folder`. They may lie inside the source,"
    " and are then never inventoried.",
    default=lambda: f"{AUDIO_SOURCE_URI.get()}/output_parquet",
    default_words="`output_parquet` in the source's root",
    example="s3://my-bucket/output_parquet",
    secret=True,
    parse=_location,
    rule=_NO_LOCATION,
)
AUDIO_EVENTS_QUEUE_URL = Setting(
    name="AUDIO_EVENTS_QUEUE_URL",
    meaning="The SQS queue that the bucket's notifications go to. New audio is then found without listing the"
    " bucket ([how to set it up](docs/operating.md#events-instead-of-listing)).",
    default_words="none",
    example="https://sqs.eu-central-1.amazonaws.com/123456789012/audio-events",
    parse=str,
)
S3_INVENTORY_MANIFEST = Setting(
    name="S3_INVENTORY_MANIFEST",
    meaning="The `manifest.json` of an S3 Inventory report, which is read instead of listing the bucket"
    " ([how to set it up](docs/operating.md#a-bucket-too-large-to-list)).",
    default_words="none",
    example="s3://my-reports/my-bucket/daily/2026-11-22T01-00Z/manifest.json",
    parse=str,
)
S3_ATTEMPTS = Setting(
    name="S3_ATTEMPTS",
    meaning="How often a request to S3 is made before the run fails, the first time included.",
    default="10",
    example="10",
    parse=_attempts,
    rule="is a whole number from 1",
)
S3_STALL_SECONDS = Setting(
    name="S3_STALL_SECONDS",
    meaning="Seconds without a byte after which a connection is given up and the request is made again.",
    default="60",
    example="60",
    parse=_seconds_above_0,
    rule="is a number above 0",
)
WHISPER_MODEL = Setting(
    name="WHISPER_MODEL",
    meaning="A name that `whisper.load_model` knows (`tiny`, `base`, `small`, `medium`, `large-v3`, `turbo`,"
    " `tiny.en` …), or the path of a checkpoint. The demo's checkpoint reads the demo's small grammar only.",
    default=str(DEMO_CHECKPOINT),
    default_words="the demo's checkpoint",
    example="turbo",
    parse=str,
)
WHISPER_DEVICE = Setting(
    name="WHISPER_DEVICE",
    meaning="`cpu`, `cuda`, `cuda:1` …, or `auto` for a GPU where there is one.",
    default="auto",
    example="auto",
    parse=str,
)
WHISPER_LANGUAGE = Setting(
    name="WHISPER_LANGUAGE",
    meaning="A language code such as `en`, or `auto` to detect it for each object.",
    default="auto",
    example="en",
    parse=_language,
)
WHISPER_BATCH_SIZE = Setting(
    name="WHISPER_BATCH_SIZE",
    meaning="How many clips are transcribed at a time, or `auto` for what the device holds.",
    default="auto",
    example="auto",
    parse=_batch_size,
    rule="is a number of clips or auto",
)
WHISPER_TASK = Setting(
    name="WHISPER_TASK",
    meaning="`transcribe`, or `translate` into English."
    " [What this and the next fourteen do](docs/transcription.md#options-of-whispertranscribe).",
    default="transcribe",
    example="translate",
    parse=_one_of("transcribe", "translate"),
    rule="is transcribe or translate",
)
WHISPER_INITIAL_PROMPT = Setting(
    name="WHISPER_INITIAL_PROMPT",
    meaning="Text to go before each object's first 30 s, such as names and how they are spelt.",
    example="Kubernetes, PyTorch, Dagster",
    parse=lambda text: text or None,
)
WHISPER_CONDITION_ON_PREVIOUS_TEXT = Setting(
    name="WHISPER_CONDITION_ON_PREVIOUS_TEXT",
    meaning="Whether the text so far is the prompt of the next 30 s of a long object: `true` or `false`.",
    default="true",
    example="false",
    parse=_true_or_false,
    rule="is true or false",
)
WHISPER_TEMPERATURES = Setting(
    name="WHISPER_TEMPERATURES",
    meaning="The temperatures to decode at, one after the other, until a text is neither repetitive nor"
    " improbable; each from 0 to 1.",
    default="0.0,0.2,0.4,0.6,0.8,1.0",
    example="0.0",
    parse=_temperatures,
    rule="is one temperature or several with commas between them, each from 0 to 1",
)
WHISPER_BEAM_SIZE = Setting(
    name="WHISPER_BEAM_SIZE",
    meaning="How many texts a beam search keeps at temperature 0; `none` for greedy decoding."
    " The command `whisper` has 5.",
    default="none",
    example="5",
    parse=_texts,
    rule="is a number of texts or none",
)
WHISPER_PATIENCE = Setting(
    name="WHISPER_PATIENCE",
    meaning="How many texts end before a beam search does, as a multiple of `WHISPER_BEAM_SIZE`; `none` for"
    " 1.",
    default="none",
    example="2.0",
    parse=_patience,
    rule="is a number above 0, or none",
)
WHISPER_BEST_OF = Setting(
    name="WHISPER_BEST_OF",
    meaning="How many texts are drawn at a temperature above 0, of which the most probable is kept; `none`"
    " for 1. The command `whisper` has 5.",
    default="none",
    example="5",
    parse=_texts,
    rule="is a number of texts or none",
)
WHISPER_COMPRESSION_RATIO_THRESHOLD = Setting(
    name="WHISPER_COMPRESSION_RATIO_THRESHOLD",
    meaning="Above this `compression_ratio` a text is repetitive; `none` for no limit.",
    default="2.4",
    example="2.4",
    parse=_threshold,
    rule="is a number or none",
)
WHISPER_LOGPROB_THRESHOLD = Setting(
    name="WHISPER_LOGPROB_THRESHOLD",
    meaning="Below this `avg_logprob` a text is improbable; `none` for no limit.",
    default="-1.0",
    example="-1.0",
    parse=_threshold,
    rule="is a number or none",
)
WHISPER_NO_SPEECH_THRESHOLD = Setting(
    name="WHISPER_NO_SPEECH_THRESHOLD",
    meaning="Above this `no_speech_prob` an improbable text is taken for silence; `none` for never.",
    default="0.6",
    example="0.6",
    parse=_threshold,
    rule="is a number or none",
)
WHISPER_WORD_TIMESTAMPS = Setting(
    name="WHISPER_WORD_TIMESTAMPS",
    meaning="Whether the column `words` of `transcripts` says when each word was said: `true` or `false`.",
    default="false",
    example="true",
    parse=_true_or_false,
    rule="is true or false",
)
WHISPER_HALLUCINATION_SILENCE_THRESHOLD = Setting(
    name="WHISPER_HALLUCINATION_SILENCE_THRESHOLD",
    meaning="Where a text is likely made up, silence of more than so many seconds is skipped; `none` to skip"
    " none. Needs `WHISPER_WORD_TIMESTAMPS`.",
    default="none",
    example="2.0",
    parse=_silence,
    rule="is a number of seconds above 0, or none",
)
WHISPER_LANGUAGE_DETECTION_THRESHOLD = Setting(
    name="WHISPER_LANGUAGE_DETECTION_THRESHOLD",
    meaning="From this probability on, the language that is detected on the window to be transcribed counts."
    " Below it, and always with `none`, an object of less than 30 s takes a second pass of the encoder, as in"
    " Whisper itself.",
    default="0.9",
    example="none",
    parse=_threshold,
    rule="is a number or none",
)
WHISPER_SECOND_MODEL = Setting(
    name="WHISPER_SECOND_MODEL",
    meaning="A second model that hears the same audio, by name or path as `WHISPER_MODEL`:"
    " [`second_text` and `second_word_error_rate`](docs/transcription.md#a-second-opinion) say what it hears"
    " and how far both agree.",
    default_words="none",
    example="tiny.en",
    parse=lambda text: text or None,
)
WHISPER_LOGIT_MARGIN_THRESHOLD = Setting(
    name="WHISPER_LOGIT_MARGIN_THRESHOLD",
    meaning="Everything is transcribed in half precision, and once more at float32 where a choice between"
    " tokens was closer than this, in logits. `none` to transcribe at one precision, on a CPU float32:"
    " [what it gains and costs](docs/transcription.md#close-choices).",
    default="none",
    example="0.02",
    parse=_threshold,
    rule="is a number or none",
)
WHISPER_OPTIONS: dict[str, Setting[Any]] = {
    "task": WHISPER_TASK,
    "initial_prompt": WHISPER_INITIAL_PROMPT,
    "condition_on_previous_text": WHISPER_CONDITION_ON_PREVIOUS_TEXT,
    "temperatures": WHISPER_TEMPERATURES,
    "beam_size": WHISPER_BEAM_SIZE,
    "patience": WHISPER_PATIENCE,
    "best_of": WHISPER_BEST_OF,
    "compression_ratio_threshold": WHISPER_COMPRESSION_RATIO_THRESHOLD,
    "logprob_threshold": WHISPER_LOGPROB_THRESHOLD,
    "no_speech_threshold": WHISPER_NO_SPEECH_THRESHOLD,
    "word_timestamps": WHISPER_WORD_TIMESTAMPS,
    "hallucination_silence_threshold": WHISPER_HALLUCINATION_SILENCE_THRESHOLD,
    "language_detection_threshold": WHISPER_LANGUAGE_DETECTION_THRESHOLD,
    "second_model": WHISPER_SECOND_MODEL,
    "logit_margin_threshold": WHISPER_LOGIT_MARGIN_THRESHOLD,
}
"""The options of `whisper.transcribe`, by the name of the argument that takes the value."""

TOKENISER = Setting(
    name="TOKENISER",
    meaning="`simulated`; a neural codec by name or folder, such as"
    " `facebook/encodec_24khz?bandwidth=6&layout=metavoice` ([which there are](docs/tokens.md#codecs)); or"
    " `package.module:name` of a function or class of your own"
    " ([how to write one](CONTRIBUTING.md#add-a-tokeniser)), which is imported from the working directory,"
    " `PYTHONPATH` or an installed package.",
    default="simulated",
    example="simulated",
    parse=str,
)
AUDIO_FORMATS = Setting(
    name="AUDIO_FORMATS",
    meaning="Which objects are audio, by their suffixes, in any mix: `flac`, `wav`, `mp3`, `ogg`, `opus`, and"
    " with the extra `formats` also `m4a`, `aac`, `webm`"
    " ([what is read in them](docs/table.md#audio-formats)).",
    default="flac",
    example="flac,wav,mp3",
    parse=_formats,
    rule=f"is a list of {', '.join(AUDIO_FORMAT_NAMES)} with commas between them",
)
SETTLE_SECONDS = Setting(
    name="SETTLE_SECONDS",
    meaning="How long after its end a minute counts as closed, in seconds.",
    default="60",
    example="60",
    parse=_settle_time,
    rule="is a number of seconds",
)
DAILY_INTERVAL_MINUTES = Setting(
    name="DAILY_INTERVAL_MINUTES",
    meaning="How often a day that is still open, or that runs are working on, is compacted into"
    " [`audio_table_daily`](docs/table.md#the-daily-copy) at most, in minutes.",
    default="60",
    example="15",
    parse=_interval,
    rule="is a number of minutes from 0",
)
SHARDS_SELECTION = Setting(
    name="SHARDS_SELECTION",
    meaning="Which rows [`training_shards`](docs/training.md#the-asset) take, as JSON; `{}` for all that are"
    " `ok`. Its sensor keeps them in step as soon as this is set.",
    default_words="none, and no shards",
    example='{"min_avg_logprob": -1, "min_duration_s": 1, "max_duration_s": 30}',
    parse=_json_object,
    rule="is a JSON object",
)
SHARDS_SPLITS = Setting(
    name="SHARDS_SPLITS",
    meaning="How [`training_shards`](docs/training.md#splits-and-order) are divided, as JSON.",
    default="{}",
    default_words='`{"validation": 0.02, "test": 0.02, "by": "folder", "seed": 0}`',
    example='{"by": "key"}',
    parse=_json_object,
    rule="is a JSON object",
)
BACKFILL_ORDER = Setting(
    name="BACKFILL_ORDER",
    meaning="In which order audio that waits is processed: `folder` by folder, or the `newest` minutes of all"
    " folders first.",
    default="folder",
    example="newest",
    parse=_one_of("folder", "newest"),
    rule="is folder or newest",
)
PARTITIONS_PER_RUN = Setting(
    name="PARTITIONS_PER_RUN",
    meaning="How many partitions a run covers at most, of the sensor and of a backfill in the UI. A cluster"
    " is kept busy by more ([how many](docs/ray.md#how-large-a-run-is)).",
    default="100",
    example="2000",
    parse=_at_least_one,
    rule="is a whole number from 1",
)
OBJECTS_PER_RUN = Setting(
    name="OBJECTS_PER_RUN",
    meaning="How many objects a run of the sensor covers at most; a single partition may have more.",
    default="20000",
    example="400000",
    parse=_at_least_one,
    rule="is a whole number from 1",
)
MAX_RUNS_IN_FLIGHT = Setting(
    name="MAX_RUNS_IN_FLIGHT",
    meaning="Until how many runs wait or work the sensor asks for more; `0` lets it ask for none.",
    default="25",
    example="25",
    parse=_at_least_zero,
    rule="is a whole number from 0",
)
KEEP_RUN_LOGS_DAYS = Setting(
    name="KEEP_RUN_LOGS_DAYS",
    meaning="How many days the logs of a run are kept. What the run has made stays on record"
    " ([what is deleted](docs/operating.md#logs-of-old-runs)).",
    default="30",
    example="30",
    parse=_days,
    rule="is a number of days from 0",
)
FAILURE_WEBHOOK_URL = Setting(
    name="FAILURE_WEBHOOK_URL",
    meaning="A webhook of Slack, Mattermost, Google Chat or the like that is told of each run that fails"
    " ([what it is told](docs/operating.md#when-a-run-fails-somebody-is-told)).",
    default_words="none",
    example="https://hooks.slack.com/services/…",
    # Whoever knows it can write there.
    secret=True,
    parse=_address,
    rule="is no address; it should read like https://host/path",
)

REDO_STALE = Setting(
    name="REDO_STALE",
    meaning="Who makes stale rows anew, those that another `WHISPER_MODEL`, `WHISPER_LANGUAGE` or `TOKENISER`"
    " made: the `job` redo_stale, when somebody launches it, or the `sensor`, by itself.",
    default="job",
    example="sensor",
    parse=_one_of("job", "sensor"),
    rule="is job or sensor",
)

LISTENING_AUDIO_URL = Setting(
    name="LISTENING_AUDIO_URL",
    meaning="The address at which a browser finds the objects of AUDIO_SOURCE_URI, for the"
    " [listening page](docs/listening.md#how-a-page-comes-to-its-audio). It needs none where page and audio"
    " lie in the same bucket or on the same disk.",
    default_words="relative to the page",
    example="https://audio.example.com/wav48",
    parse=_address,
    rule="is no address; it should read like https://host/path",
)
LISTENING_PAGE_URL = Setting(
    name="LISTENING_PAGE_URL",
    meaning="The address at which a browser finds `listening_page` of AUDIO_TABLE_URI: the link in the UI.",
    default_words="none",
    example="https://audio.example.com/output_parquet/listening_page",
    parse=_address,
    rule="is no address; it should read like https://host/path",
)
RAY_ADDRESS = Setting(
    name="RAY_ADDRESS",
    meaning="The Ray cluster whose actors make transcripts and tokens: `host:port` of its head, `auto` for"
    " the one that runs on this machine, `local` for the one of this machine that is started where none runs"
    " ([how to](docs/ray.md)). Needs `pip install 'audio-assets[ray]'`.",
    default_words="none: a run does this itself",
    example="local",
    parse=_ray_address,
    rule="is local, auto or host:port",
)
RAY_GPUS_PER_ACTOR = Setting(
    name="RAY_GPUS_PER_ACTOR",
    meaning="How much of a GPU an actor takes: `1`, a part such as `0.5` for two on a GPU, or `0` for actors"
    " on CPUs.",
    default="1",
    example="0.5",
    parse=_part,
    rule="is 0, a part of 1 or a whole number",
)
RAY_CPUS_PER_ACTOR = Setting(
    name="RAY_CPUS_PER_ACTOR",
    meaning="How many CPUs an actor takes. It decodes audio on them.",
    default="1",
    example="4",
    parse=_part,
    rule="is 0, a part of 1 or a whole number",
)
RAY_MAX_ACTORS = Setting(
    name="RAY_MAX_ACTORS",
    meaning="How many actors there may be, or `auto` for as many as the nodes hold that are there. A cluster"
    " that adds nodes on demand needs a number.",
    default="auto",
    example="16",
    parse=_number_or_auto,
    rule="is a whole number from 1 or auto",
)
RAY_ACTOR_IDLE_MINUTES = Setting(
    name="RAY_ACTOR_IDLE_MINUTES",
    meaning="After how many minutes without work an actor ends and gives its GPU back.",
    default="10",
    example="10",
    parse=_minutes,
    rule="is a number of minutes above 0",
)
RAY_VARIABLES = (
    RAY_ADDRESS,
    Variable(
        name="RAY_AUTH_MODE",
        meaning="Ray's own: `token` lets only those in who have the cluster's token.",
        default_words="`token` in runs",
        example="token",
    ),
    Variable(
        name="RAY_AUTH_TOKEN",
        meaning="The cluster's token, the same on all nodes; `ray get-auth-token --generate` makes one.",
        secret=True,
    ),
    Variable(
        name="RAY_AUTH_TOKEN_PATH",
        meaning="A file that holds the token, instead of RAY_AUTH_TOKEN.",
        default_words="`~/.ray/auth_token`",
        example="/run/secrets/ray_auth_token",
    ),
    RAY_GPUS_PER_ACTOR,
    RAY_CPUS_PER_ACTOR,
    RAY_MAX_ACTORS,
    RAY_ACTOR_IDLE_MINUTES,
)

AWS_VARIABLES = (
    Variable(
        name="AWS_ACCESS_KEY_ID",
        meaning="An access key. Whatever else AWS clients go by works as well: profiles, SSO, instance roles,"
        " `~/.aws`.",
        secret=True,
    ),
    Variable(name="AWS_SECRET_ACCESS_KEY", meaning="The secret part of the access key.", secret=True),
    Variable(name="AWS_SESSION_TOKEN", meaning="The token that belongs to temporary keys.", secret=True),
    Variable(name="AWS_PROFILE", meaning="The profile in `~/.aws` to go by."),
    Variable(
        name="AWS_DEFAULT_REGION",
        meaning="The region of bucket and queue; `auto` for Cloudflare R2.",
        example="eu-central-1",
    ),
    Variable(
        name="AWS_ENDPOINT_URL_S3",
        meaning="The address of an S3 server other than AWS: R2, MinIO, Ceph and the like.",
        example="http://127.0.0.1:9000",
        # It may hold a password by mistake.
        secret=True,
    ),
    Variable(
        name="AWS_ENDPOINT_URL_SQS",
        meaning="The address of an SQS server other than AWS.",
        example="http://127.0.0.1:9324",
        secret=True,
    ),
)
DAGSTER_HOME = Variable(
    name="DAGSTER_HOME",
    meaning="The folder in which Dagster keeps its instance, which serves one source and table at a time. Set"
    " it in the shell rather than in `.env`.",
    default_words="`.dagster_home/`",
    example=None,
)
# Dagster reads them, by deploy/dagster.yaml.
POSTGRES_VARIABLES = (
    Variable(
        name="DAGSTER_PG_HOST",
        meaning="The Postgres server that stores the instance, where `DAGSTER_HOME` holds deploy/dagster.yaml"
        " ([how to set it up](docs/operating.md#postgres)). The environment of each service has all five.",
        example=None,
    ),
    Variable(name="DAGSTER_PG_PORT", meaning="The port of that server, mostly 5432.", example=None),
    Variable(name="DAGSTER_PG_USERNAME", meaning="Who connects to it.", example=None),
    Variable(name="DAGSTER_PG_PASSWORD", meaning="The password of that user.", example=None, secret=True),
    Variable(name="DAGSTER_PG_DB", meaning="The name of the database.", example=None),
)

VARIABLES: tuple[Variable, ...] = (
    AUDIO_SOURCE_URI,
    AUDIO_TABLE_URI,
    AUDIO_EVENTS_QUEUE_URL,
    S3_INVENTORY_MANIFEST,
    *AWS_VARIABLES,
    S3_ATTEMPTS,
    S3_STALL_SECONDS,
    WHISPER_MODEL,
    WHISPER_DEVICE,
    WHISPER_LANGUAGE,
    WHISPER_BATCH_SIZE,
    *WHISPER_OPTIONS.values(),
    TOKENISER,
    AUDIO_FORMATS,
    SETTLE_SECONDS,
    DAILY_INTERVAL_MINUTES,
    SHARDS_SELECTION,
    SHARDS_SPLITS,
    BACKFILL_ORDER,
    REDO_STALE,
    PARTITIONS_PER_RUN,
    OBJECTS_PER_RUN,
    MAX_RUNS_IN_FLIGHT,
    *RAY_VARIABLES,
    KEEP_RUN_LOGS_DAYS,
    FAILURE_WEBHOOK_URL,
    LISTENING_AUDIO_URL,
    LISTENING_PAGE_URL,
    DAGSTER_HOME,
    *POSTGRES_VARIABLES,
)
"""All that README.md and `.env.example` list, in their order."""

SETTINGS: tuple[Setting[Any], ...] = tuple(v for v in VARIABLES if isinstance(v, Setting))
"""Those that this project reads itself. The demo and the tests drop them from the environment."""


# --- where they come from -------------------------------------------------------------------------------


def load_env() -> pathlib.Path | None:
    """Read `.env` into the environment as `dg dev` and `dagster dev` do, AWS_ variables included.

    It is the file of the working directory, else that of the project. As there, what it says wins over what
    the shell says, and a name without `=` says nothing. To read it again changes nothing.

    Returns:
        The file that was read, None where there is none.
    """
    file = next((path for path in env_files() if path.is_file()), None)
    if file is not None:
        os.environ.update(
            {name: text for name, text in dotenv.dotenv_values(file).items() if text is not None}
        )
    return file


def env_files() -> tuple[pathlib.Path, ...]:
    """Where `load_env` looks, in that order."""
    return (pathlib.Path.cwd() / ".env", PROJECT / ".env")


def open_dagster_home() -> pathlib.Path:
    """The folder of Dagster's instance, by default the project's; made as `make` makes it.

    DAGSTER_HOME is set to it, so that all that this process does with Dagster goes there.
    """
    said = os.environ.get(DAGSTER_HOME.name)
    home = pathlib.Path(said or PROJECT / ".dagster_home").absolute()
    source = PROJECT / "dagster.yaml"
    copy = home / source.name
    home.mkdir(parents=True, exist_ok=True)
    # Whoever names a folder may have an instance there that is configured otherwise.
    outdated = not said and copy.exists() and copy.stat().st_mtime < source.stat().st_mtime
    if source.exists() and (outdated or not copy.exists()):
        shutil.copyfile(source, copy)
    os.environ[DAGSTER_HOME.name] = str(home)
    return home


# --- how they are shown ---------------------------------------------------------------------------------

_README_BLOCK = re.compile(r"(?<=<!-- settings -->\n).*?(?=<!-- /settings -->)", re.DOTALL)
_LINK = re.compile(r"\[([^]]*)\]\(([^)#]*)[^)]*\)")


def markdown_table() -> str:
    """The table between README.md's `<!-- settings -->` marks."""
    rows = [f"| `{v.name}` | {v.meaning} | {_default(v) or '–'} |\n" for v in VARIABLES]
    return "".join(["| variable | meaning | default |\n|---|---|---|\n", *rows])


def env_example() -> str:
    """All of `.env.example`."""
    parts = [
        "# Copy to .env and uncomment what differs from the demo. `make dev`, `audio-assets` and read_table\n"
        "# read it, and it wins over what the shell says.\n"
        "# No secrets belong in a repository: .env is ignored by git.\n"
    ]
    for variable in VARIABLES:
        if variable.example is None:
            continue
        default = _default(variable)
        said = variable.meaning + (f" Default: {default}." if default else "")
        plain = _LINK.sub(r"\1: \2", said).replace("`", "")
        comment = textwrap.fill(
            plain, 110, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
        )
        parts.append(f"{comment}\n#{variable.name}={variable.example}\n")
    return "\n".join(parts)


def _default(variable: Variable) -> str:
    """A variable's default in Markdown, empty where it has none."""
    if not variable.default_words and isinstance(variable, Setting):
        return f"`{variable.default}`"
    return variable.default_words


def main() -> None:
    """Write README.md's table and `.env.example` anew."""
    (PROJECT / ".env.example").write_text(env_example())
    readme = PROJECT / "README.md"
    readme.write_text(_README_BLOCK.sub(lambda _: markdown_table(), readme.read_text()))


if __name__ == "__main__":
    main()
