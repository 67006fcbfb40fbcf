"""The engines that are compared, each behind the same call: clips in, token counts and texts out.

All get the same weights and run greedily with timestamps and English given. Peers get their strongest known
form: batches of the size that suits them, features made in one go for a batch.
"""

import hashlib
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import soundfile
import torch
import whisper
from whisper.model import Whisper
from whisper.tokenizer import Tokenizer, get_tokenizer

from audio_assets.audio import decode_flac
from audio_assets.parallel import map_ahead
from audio_assets.speech import OBJECTS_AHEAD
from audio_assets.table import THREADS
from audio_assets.tokenisation import load_tokeniser, tokenise
from audio_assets.transcription import Transcriber
from audio_assets.transcription.engine import Engine
from audio_assets.transcription.options import Options
from audio_assets.transcription.transcribe_options import DEFAULTS, TranscribeOptions
from benchmarks.common import transcripts

Clip = np.ndarray
Run = Callable[[Sequence[Clip]], list[str]]
FILES = pathlib.Path(tempfile.mkdtemp())


def tokenizer_of(model: Whisper) -> Tokenizer:
    return get_tokenizer(model.is_multilingual, num_languages=model.num_languages, language="en")


def words(tokenizer: Tokenizer, tokens: Sequence[int]) -> str:
    return tokenizer.decode([t for t in tokens if t < tokenizer.eot])


def flac_files(clips: Sequence[Clip]) -> list[pathlib.Path]:
    """The clips as FLAC files of 16 bits at 16 kHz; each clip is written once."""
    paths = []
    for clip in clips:
        path = FILES / f"{hashlib.sha256(clip.tobytes()).hexdigest()}.flac"
        if not path.exists():
            soundfile.write(path, clip, 16_000)
        paths.append(path)
    return paths


def seed_loop(model: Whisper, language: str | None = None) -> Run:
    """What the seed's notebook does for each object: `transcribe(path)`, `load_audio(path)`, `tokenise`.

    Whisper reads a file by a process of ffmpeg. Downloading is left out, which favours this loop.
    """
    if shutil.which("ffmpeg") is None:
        raise RuntimeError("the seed's loop reads files by ffmpeg; install it (Debian: apt install ffmpeg)")

    def run(clips: Sequence[Clip]) -> list[str]:
        texts = []
        for path in flac_files(clips):
            fp16 = model.device.type == "cuda"
            texts.append(model.transcribe(str(path), language=language, fp16=fp16)["text"])
            tokenise(whisper.load_audio(str(path)))
        return texts

    return run


def ours_from_files(model: Whisper, precision: str, language: str | None = "en") -> Run:
    """This project's engine on what the seed's loop is given: FLAC files, read and tokenised in threads."""
    transcriber = our_transcriber(model, precision, language)
    into_tokens = load_tokeniser("simulated")

    def load(path: pathlib.Path) -> Clip:
        audio = decode_flac(path.read_bytes())
        into_tokens(audio.samples, path.stem)
        return audio.samples

    def run(clips: Sequence[Clip]) -> list[str]:
        with ThreadPoolExecutor(THREADS) as pool:
            loaded = map_ahead(pool, load, flac_files(clips), ahead=OBJECTS_AHEAD)
            return [t.text for t in transcripts(transcriber, loaded)]

    return run


def decode_batched(model: Whisper, batch: int) -> Run:
    """`whisper.decode` on batches of padded clips."""

    def run(clips: Sequence[Clip]) -> list[str]:
        texts = []
        for start in range(0, len(clips), batch):
            mel = features(clips[start : start + batch], model.dims.n_mels, model.device)
            options = whisper.DecodingOptions(language="en", fp16=model.device.type == "cuda")
            results = whisper.decode(model, mel, options)
            assert isinstance(results, list)
            texts += [r.text for r in results]
        return texts

    return run


def ours(model: Whisper, precision: str, language: str | None = "en") -> Run:
    """This project's engine with its defaults, but for precision."""
    transcriber = our_transcriber(model, precision, language)
    return lambda clips: [t.text for t in transcripts(transcriber, clips)]


def our_transcriber(
    model: Whisper,
    precision: str,
    language: str | None,
    batch_size: int | None = None,
    transcribe: TranscribeOptions = DEFAULTS,
) -> Transcriber:
    options = Options("benchmark", str(model.device), language, batch_size, precision, transcribe)
    with torch.inference_mode():
        return Transcriber(Engine(model, options.resolve()), "benchmark")


def features(clips: Sequence[Clip], n_mels: int, device: torch.device) -> torch.Tensor:
    """float32 [batch, n_mels, 3000], clip by clip, as each is scaled by its own maximum."""
    padded = [torch.from_numpy(whisper.pad_or_trim(c)) for c in clips]
    return torch.stack([whisper.log_mel_spectrogram(p, n_mels, device=device) for p in padded])


_HUGGING_FACE_NAMES = [
    ("encoder.positional_embedding", "encoder.embed_positions.weight"),
    (".attn_ln.", ".self_attn_layer_norm."),
    ("decoder.positional_embedding", "decoder.embed_positions.weight"),
    (".attn.", ".self_attn."),
    ("decoder.token_embedding", "decoder.embed_tokens"),
    (".cross_attn_ln.", ".encoder_attn_layer_norm."),
    ("encoder.ln_post", "encoder.layer_norm"),
    (".cross_attn.", ".encoder_attn."),
    (".mlp.0.", ".fc1."),
    ("decoder.ln.", "decoder.layer_norm."),
    (".mlp.2.", ".fc2."),
    (".mlp_ln.", ".final_layer_norm."),
    (".query.", ".q_proj."),
    (".key.", ".k_proj."),
    (".value.", ".v_proj."),
    (".out.", ".out_proj."),
    (".blocks.", ".layers."),
]
"""Parts of the names of whisper's weights in the order of their replacement, as Hugging Face has them."""


def hugging_face_model(model: Whisper):
    """The same weights as a `WhisperForConditionalGeneration`."""
    from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration

    dims = model.dims
    tokenizer = tokenizer_of(model)
    config = WhisperConfig(
        vocab_size=dims.n_vocab,
        num_mel_bins=dims.n_mels,
        d_model=dims.n_audio_state,
        encoder_layers=dims.n_audio_layer,
        encoder_attention_heads=dims.n_audio_head,
        encoder_ffn_dim=4 * dims.n_audio_state,
        decoder_layers=dims.n_text_layer,
        decoder_attention_heads=dims.n_text_head,
        decoder_ffn_dim=4 * dims.n_text_state,
        max_target_positions=dims.n_text_ctx,
        pad_token_id=tokenizer.eot,
        bos_token_id=tokenizer.eot,
        eos_token_id=tokenizer.eot,
        decoder_start_token_id=tokenizer.sot,
    )
    # As Any: the library's generated types do not follow it.
    theirs: Any = WhisperForConditionalGeneration(config)
    state = {}
    for name, weight in model.state_dict().items():
        for old, new in _HUGGING_FACE_NAMES:
            name = name.replace(old, new)
        state[f"model.{name}"] = weight
    state["proj_out.weight"] = model.state_dict()["decoder.token_embedding.weight"]
    theirs.load_state_dict(state)
    special = tokenizer.special_tokens
    theirs.generation_config = GenerationConfig(
        **dict(bos_token_id=tokenizer.eot, eos_token_id=tokenizer.eot, pad_token_id=tokenizer.eot),
        **dict(decoder_start_token_id=tokenizer.sot, max_length=dims.n_text_ctx, is_multilingual=True),
        **dict(no_timestamps_token_id=tokenizer.no_timestamps, max_initial_timestamp_index=50),
        lang_to_id={f"<|{code}|>": special[f"<|{code}|>"] for code in tokenizer.all_language_codes},
        task_to_id={"transcribe": tokenizer.transcribe, "translate": tokenizer.translate},
        suppress_tokens=[*tokenizer.non_speech_tokens, tokenizer.sot, tokenizer.sot_prev, tokenizer.sot_lm],
        begin_suppress_tokens=[220, tokenizer.eot],
        prev_sot_token_id=tokenizer.sot_prev,
    )
    return theirs.eval().to(model.device)


def hugging_face(
    model: Whisper, precision: str, batch: int, language: str | None = "en", *, compiled: bool = False
) -> Run:
    """`generate` on batches; compiled with a static cache on request, which is its fast form on a GPU."""
    theirs = hugging_face_model(model).to(getattr(torch, precision))
    tokenizer = tokenizer_of(model)
    settings: dict[str, Any] = dict(task="transcribe", return_timestamps=True, do_sample=False, num_beams=1)
    settings["language"] = language
    if compiled:
        settings["cache_implementation"] = "static"
        theirs.forward = torch.compile(theirs.forward, mode="reduce-overhead", fullgraph=True)

    @torch.inference_mode()
    def run(clips: Sequence[Clip]) -> list[str]:
        texts = []
        for start in range(0, len(clips), batch):
            mel = features(clips[start : start + batch], model.dims.n_mels, model.device).to(theirs.dtype)
            texts += [words(tokenizer, row) for row in theirs.generate(mel, **settings).tolist()]
        return texts

    return run


def ctranslate2_folder(model: Whisper) -> str:
    """The same weights in the format of CTranslate2, which faster-whisper runs on."""
    from ctranslate2.converters import transformers as converter  # pyright: ignore[reportMissingImports]
    from transformers import WhisperForConditionalGeneration

    theirs: WhisperForConditionalGeneration = hugging_face_model(model).cpu()
    loader = converter.WhisperLoader()
    spec: Any = loader.get_model_spec(theirs)
    tokenizer = tokenizer_of(model)
    # CTranslate2 finds special tokens by their names.
    names = [""] * model.dims.n_vocab
    for name, i in [*spelled(tokenizer).items(), *tokenizer.special_tokens.items()]:
        names[i] = "<|nocaptions|>" if name == "<|nospeech|>" else name
    spec.register_vocabulary(names)
    spec.config.suppress_ids = theirs.generation_config.suppress_tokens
    spec.config.suppress_ids_begin = theirs.generation_config.begin_suppress_tokens
    spec.config.lang_ids = sorted(tokenizer.all_language_tokens)
    layers = model.dims.n_text_layer
    heads = model.dims.n_text_head
    spec.config.alignment_heads = [(i, h) for i in range(layers // 2, layers) for h in range(heads)]
    folder = tempfile.mkdtemp()
    spec.validate()
    spec.save(folder)
    return folder


def ctranslate2_batched(model: Whisper, precision: str, batch: int, language: str | None = "en") -> Run:
    """What faster-whisper runs on, called directly with batches of clips.

    Where no language is given it is detected on the features that the text is then read from.
    """
    import ctranslate2  # pyright: ignore[reportMissingImports]

    device = model.device.type
    theirs = ctranslate2.models.Whisper(
        ctranslate2_folder(model),
        device=device,
        compute_type=precision,
        intra_threads=torch.get_num_threads(),
    )
    tokenizer = tokenizer_of(model)

    def run(clips: Sequence[Clip]) -> list[str]:
        texts = []
        for start in range(0, len(clips), batch):
            mel = features(clips[start : start + batch], model.dims.n_mels, torch.device("cpu")).numpy()
            view = ctranslate2.StorageView.from_array(mel)
            prompts = [list(tokenizer.sot_sequence)] * len(mel)
            if language is None:
                view = theirs.encode(view)
                first = [tokenizer.special_tokens[found[0][0]] for found in theirs.detect_language(view)]
                prompts = [[tokenizer.sot, each, *tokenizer.sot_sequence[2:]] for each in first]
            results = theirs.generate(view, prompts, beam_size=1, max_length=448, return_scores=True)
            texts += [words(tokenizer, r.sequences_ids[0]) for r in results]
        return texts

    return run


def faster_whisper_model(model: Whisper, precision: str) -> Any:
    """The same weights as a `faster_whisper.WhisperModel`."""
    import json

    from faster_whisper import WhisperModel  # pyright: ignore[reportMissingImports]

    folder = pathlib.Path(ctranslate2_folder(model))
    (folder / "tokenizer.json").write_text(hugging_face_tokenizer(model))
    (folder / "preprocessor_config.json").write_text(json.dumps({"feature_size": model.dims.n_mels}))
    return WhisperModel(
        str(folder), device=model.device.type, compute_type=precision, cpu_threads=torch.get_num_threads()
    )


def faster_whisper_by_file(model: Whisper, precision: str) -> Run:
    """Its `transcribe` for one clip after another, with the language detected and greedy at first."""
    theirs = faster_whisper_model(model, precision)

    def run(clips: Sequence[Clip]) -> list[str]:
        return ["".join(s.text for s in theirs.transcribe(clip, beam_size=1)[0]) for clip in clips]

    return run


def faster_whisper(model: Whisper, precision: str, batch: int) -> Run:
    """Its `BatchedInferencePipeline`, which batches stretches of one recording: the clips, joined."""
    from faster_whisper import BatchedInferencePipeline  # pyright: ignore[reportMissingImports]

    pipeline = BatchedInferencePipeline(faster_whisper_model(model, precision))
    tokenizer = tokenizer_of(model)

    def run(clips: Sequence[Clip]) -> list[str]:
        ends = np.cumsum([len(c) for c in clips]) / 16_000
        # The rounded sum of all stretches must not exceed the recording.
        recording = np.concatenate([*clips, np.zeros(16_000, np.float32)])
        stretches = [{"start": end - len(c) / 16_000, "end": end} for c, end in zip(clips, ends, strict=True)]
        settings: dict[str, Any] = dict(
            language="en", beam_size=1, temperature=0.0, without_timestamps=False, vad_filter=False
        )
        segments, _ = pipeline.transcribe(recording, clip_timestamps=stretches, batch_size=batch, **settings)
        said = [""] * len(clips)
        for segment in segments:
            clip = np.searchsorted(ends, (segment.start + segment.end) / 2)
            said[min(clip, len(said) - 1)] += words(tokenizer, segment.tokens)
        return said

    return run


def hugging_face_tokenizer(model: Whisper) -> str:
    """A tokenizer.json over Whisper's own vocabulary, which faster-whisper asks for."""
    from tokenizers import AddedToken, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as HFTokenizer

    encoding = tokenizer_of(model).encoding
    # Decoding needs no merges, and nothing is encoded here.
    theirs = HFTokenizer(models.BPE(vocab=spelled(tokenizer_of(model)), merges=[]))
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.decoder = decoders.ByteLevel()
    special = sorted(encoding._special_tokens.items(), key=lambda item: item[1])
    theirs.add_special_tokens([AddedToken(name, special=True) for name, _ in special])
    return theirs.to_str()


def spelled(tokenizer: Tokenizer) -> dict[str, int]:
    """Whisper's words as Hugging Face spells them: each byte as a printable letter."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = bytes_to_unicode()
    return {"".join(letters[b] for b in word): i for word, i in tokenizer.encoding._mergeable_ranks.items()}
