"""The command `transcribe`: what the engine hears in files of one's own. Needs no bucket and no table."""

import dataclasses
import io
import json
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audio_assets.cli.command import FAILED, complain, examples, go_to_settings, in_words
from audio_assets.cli.options import AsJson
from audio_assets.errors import AudioError, renaming

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console

    from audio_assets.audio import Audio, PcmStream
    from audio_assets.transcription import Transcriber, Transcript

EXAMPLES = examples(
    "audio-assets transcribe call.flac",
    "audio-assets transcribe *.wav --model turbo",
    "audio-assets transcribe talk.flac --json | jq -r .text",
    "audio-assets transcribe talk.flac --words",
)


def transcribe(
    files: Annotated[
        list[str],
        typer.Argument(
            help="Audio files: FLAC, WAV, MP3, Ogg, M4A, AAC, WebM and what else libsndfile reads."
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(help="A name such as turbo, or a checkpoint's path; WHISPER_MODEL by default."),
    ] = None,
    language: Annotated[
        str | None, typer.Option(help="A code such as en; WHISPER_LANGUAGE by default.")
    ] = None,
    as_json: AsJson = False,
    words: Annotated[
        bool, typer.Option("--words", help="Say when each word was said; WHISPER_WORD_TIMESTAMPS by default.")
    ] = False,
) -> None:
    """Say what is heard in audio files: text, pieces with their times, and how sure the engine is.

    Files share the engine's batches and appear as each is done. Exits with 1 if one could not be read.
    """
    with in_words():
        paths = [(name, pathlib.Path(name).absolute()) for name in files]
        checkpoint = pathlib.Path(model).absolute() if model and pathlib.Path(model).is_file() else model
        go_to_settings()
        from rich.console import Console

        transcriber = _load(None if checkpoint is None else str(checkpoint), language, words=words)
        console = Console(highlight=False, soft_wrap=True)
        reader = _Reader(paths)
        with _progress(len(paths)) as done:
            for name, transcript in transcriber.transcribe(reader.audio()):
                if isinstance(transcript, Exception):
                    reader.failed[name] = str(transcript)
                elif as_json:
                    print(json.dumps(_as_dict(name, reader.seconds[name], transcript), ensure_ascii=False))
                else:
                    _show(console, name, reader.seconds[name], transcript)
                done()
        for name, reason in reader.failed.items():
            complain(f"{name}: {reason}")
    raise typer.Exit(FAILED if reader.failed else 0)


def _load(model: str | None, language: str | None, *, words: bool) -> "Transcriber":
    """The engine as the settings say, but for what was given.

    Raises:
        ArgumentError: a setting or an option is wrong; named as whoever typed it knows it.
    """
    from audio_assets import settings
    from audio_assets.transcription import Transcriber

    if model is None and not settings.WHISPER_MODEL.is_set:
        complain(
            "WHISPER_MODEL is not set, and the demo's model hears the demo's small grammar only; for other"
            " speech add --model turbo, which is downloaded once"
        )
    names = {
        "model": "--model" if model else settings.WHISPER_MODEL.name,
        "language": "--language" if language else settings.WHISPER_LANGUAGE.name,
        "device": settings.WHISPER_DEVICE.name,
        "batch_size": settings.WHISPER_BATCH_SIZE.name,
        **{argument: setting.name for argument, setting in settings.WHISPER_OPTIONS.items()},
    }
    options = {argument: setting.get() for argument, setting in settings.WHISPER_OPTIONS.items()}
    if words:
        options["word_timestamps"] = True
    with renaming(names):
        return Transcriber.load(
            model or settings.WHISPER_MODEL.get(),
            device=settings.WHISPER_DEVICE.get(),
            language=settings.WHISPER_LANGUAGE.check(language)
            if language
            else settings.WHISPER_LANGUAGE.get(),
            batch_size=settings.WHISPER_BATCH_SIZE.get(),
            **options,
        )


class _Reader:
    """Reads files as the engine asks for them.

    Attributes:
        seconds: of audio, by file.
        failed: why a file could not be read, by file.
    """

    def __init__(self, paths: list[tuple[str, pathlib.Path]]) -> None:
        self._paths = paths
        self.seconds: dict[str, float] = {}
        self.failed: dict[str, str] = {}

    def audio(self) -> "Iterator[tuple[str, np.ndarray]]":
        for name, path in self._paths:
            try:
                audio = decode_file(path)
            except (AudioError, OSError) as e:
                self.failed[name] = e.strerror or str(e) if isinstance(e, OSError) else str(e)
            else:
                self.seconds[name] = audio.duration_s
                yield name, audio.samples


def decode_file(path: pathlib.Path) -> "Audio":
    """Mono float32 at 16 kHz of a file: as the pipeline decodes its format, else as libsndfile does.

    Raises:
        AudioError: it is no audio that can be read.
        OSError: the file cannot be read.
    """
    from audio_assets.audio import check_size, decode
    from audio_assets.audio.formats import any_decoder_of

    check_size(path.stat().st_size)
    try:
        return decode(any_decoder_of(path.name) or _read_by_libsndfile, path.read_bytes())
    except ImportError as e:
        raise AudioError("this format needs PyAV: pip install 'audio-assets[formats]'") from e


def _read_by_libsndfile(body: bytes) -> "PcmStream":
    import soundfile

    from audio_assets.audio import PcmStream

    try:
        file = soundfile.SoundFile(io.BytesIO(body))
    except soundfile.LibsndfileError as e:
        raise AudioError(f"no audio that libsndfile reads ({e}); convert it to FLAC or WAV") from e
    blocks = file.blocks(blocksize=65_536, dtype="float32", always_2d=True)
    return PcmStream(file.samplerate, file.channels, blocks)


def _as_dict(name: str, seconds: float, heard: "Transcript") -> dict[str, Any]:
    said = {"file": name, "duration_s": seconds, **dataclasses.asdict(heard), "text": heard.text.strip()}
    if heard.words is None:
        for segment in said["segments"]:
            del segment["words"]
    if heard.second_opinion is None:
        del said["second_opinion"]
    return said


def _show(console: "Console", name: str, seconds: float, heard: "Transcript") -> None:
    """A file in a terminal: its name, the text, the pieces with their times, how sure the engine is."""
    from rich.text import Text

    from audio_assets.cli.rows import small_table

    console.print(Text(name, style="bold"))
    console.print(Text(f"  {heard.text.strip() or '(nothing heard)'}"))
    said = f"  {seconds:.1f} s, {heard.language}, avg_logprob {heard.avg_logprob:.2f}"
    console.print(Text(f"{said}, no_speech_prob {heard.no_speech_prob:.2f}", style="dim"))
    if heard.second_opinion is not None:
        rate = heard.second_opinion.word_error_rate
        agreement = "" if rate is None else f" (word error rate {rate:.2f})"
        console.print(Text(f"  second model{agreement}: {heard.second_opinion.text.strip()}", style="dim"))
    if len(heard.segments) > 1:
        lines = [(_clock(s.start_s), _clock(s.end_s), s.text.strip()) for s in heard.segments]
        small_table(console, "", ("from", "to", "text"), lines)
    if heard.words:
        timed = [
            (_clock(w.start_s), _clock(w.end_s), w.word.strip(), f"{w.probability:.2f}") for w in heard.words
        ]
        small_table(console, "", ("from", "to", "word", "probability"), timed)
    console.print()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}:{rest:05.2f}"


def _progress(files: int):
    import contextlib

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    @contextlib.contextmanager
    def shown():
        console = Console(stderr=True)
        columns = (TextColumn("files"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("files", total=files)
            yield lambda: bar.advance(task)

    return shown()
