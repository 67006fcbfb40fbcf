"""Train the demo's checkpoint: a small Whisper that reads the grammar of `synthesis`.

    python -m audio_assets.demo.make_checkpoint

Weights cannot be assumed to be downloadable where the demo runs, so it ships a Whisper that is small
enough for a repository: the architecture and tokenizer of multilingual Whisper (Radford et al. 2022,
https://arxiv.org/abs/2212.04356) at width 128 and two layers, trained on synthetic speech alone. Two
cores need about an hour. The result is what `whisper.load_model(path)` reads.
"""

import argparse
import concurrent.futures
import dataclasses
import math
import pathlib
import random
import time
from collections.abc import Iterator

import jiwer
import numpy as np
import torch
import torch.nn.functional as F
import whisper
from torch import Tensor, nn
from whisper.audio import HOP_LENGTH, N_FFT, N_FRAMES, SAMPLE_RATE, mel_filters
from whisper.model import ModelDimensions, Whisper
from whisper.tokenizer import get_tokenizer

from audio_assets.demo.synthesis import WORDS, Voice, sentence, speak

CHECKPOINT = pathlib.Path(__file__).with_name("checkpoint.pt")
DIMS = ModelDimensions(
    **dict(n_mels=80, n_audio_ctx=1500, n_audio_state=128, n_audio_head=2, n_audio_layer=2),
    **dict(n_vocab=51865, n_text_ctx=448, n_text_state=128, n_text_head=2, n_text_layer=2),
)
TOKENIZER = get_tokenizer(multilingual=True, language="en", task="transcribe")
# Timestamps are learned on a grid of 0.2 s, so that a small model meets each of them often enough.
TIMESTAMP_STEP = 10
LONGEST_S = 14


@dataclasses.dataclass(frozen=True)
class Clip:
    """int16 audio of shape [samples] at 16 kHz, and its text; empty text means that nobody speaks."""

    audio: np.ndarray
    text: str


# --- the vocabulary of training -----------------------------------------------------------------------


def tokens_in_use() -> list[int]:
    """The tokens that targets hold. All others share one embedding row while training."""
    words = {t for w in WORDS for v in (w, w.capitalize()) for t in TOKENIZER.encode(f" {v}")}
    stamps = {TOKENIZER.timestamp_begin + i for i in range(0, LONGEST_S * 50, TIMESTAMP_STEP)}
    special = {TOKENIZER.eot, TOKENIZER.no_speech, TOKENIZER.no_timestamps, *TOKENIZER.sot_sequence}
    return sorted(words | stamps | special | set(TOKENIZER.encode(".")))


TOKENS = tokens_in_use()
ROW = {token: row for row, token in enumerate(TOKENS)}
REST = len(TOKENS)
IGNORE = -100


class Student(nn.Module):
    """A Whisper over the reduced vocabulary, with a CTC head on its encoder (dropped at export).

    The softmax over all 51,865 tokens is kept exactly: the one row that stands for the unused tokens
    carries the log of their number as a bias.
    """

    def __init__(self) -> None:
        super().__init__()
        self.whisper = Whisper(dataclasses.replace(DIMS, n_vocab=len(TOKENS) + 1))
        self.ctc = nn.Linear(DIMS.n_audio_state, len(WORDS) + 1)
        nn.init.normal_(self.whisper.decoder.token_embedding.weight, std=0.05)
        nn.init.normal_(self.whisper.decoder.positional_embedding, std=0.02)
        rest = torch.zeros(len(TOKENS) + 1)
        rest[REST] = math.log(DIMS.n_vocab - len(TOKENS))
        self.register_buffer("rest", rest)

    def encode(self, mel: Tensor) -> Tensor:
        """mel [batch, 80, frames] -> bfloat16 features [batch, frames / 2, 128], at any number of frames."""
        encoder = self.whisper.encoder
        x = F.gelu(encoder.conv1(mel.bfloat16()))
        x = F.gelu(encoder.conv2(x)).permute(0, 2, 1)
        positions: Tensor = encoder.get_buffer("positional_embedding")
        x = (x + positions[: x.shape[1]]).to(x.dtype)
        for block in encoder.blocks:
            x = block(x)
        return encoder.ln_post(x)

    def forward(self, mel: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """mel [batch, 80, frames] and rows [batch, length] -> logits [batch, length, rows], CTC logits."""
        features = self.encode(mel).float()
        return self.whisper.decoder(tokens, features) + self.rest, self.ctc(features)

    def export(self) -> Whisper:
        """The stock model with its full embedding table."""
        model = Whisper(DIMS)
        state = {k: v for k, v in self.whisper.state_dict().items() if k in model.state_dict()}
        small = state.pop("decoder.token_embedding.weight")
        full = small[REST].repeat(DIMS.n_vocab, 1)
        full[TOKENS] = small[: len(TOKENS)]
        model.load_state_dict({**state, "decoder.token_embedding.weight": full})
        return model.eval()

    def restore(self, model: Whisper) -> None:
        """Take the weights of an exported model; the CTC head starts anew."""
        state = model.state_dict()
        full = state["decoder.token_embedding.weight"]
        unused = next(t for t in range(DIMS.n_vocab) if t not in ROW)
        self.whisper.load_state_dict({**state, "decoder.token_embedding.weight": full[[*TOKENS, unused]]})


# --- data ---------------------------------------------------------------------------------------------


def synthesise(seed: int, count: int, held_out: bool) -> list[Clip]:
    """`count` clips of random sentences in random voices, the same for the same seed."""

    def make(i: int) -> Clip:
        rng = random.Random(f"{seed}-{i}-{held_out}")
        text = sentence(rng)
        spoken = text.rstrip(".").replace(" ", ", ") if rng.random() < 0.3 else text
        audio = speak(spoken, Voice.draw(rng, held_out=held_out), SAMPLE_RATE)
        return Clip((audio * 32767).astype(np.int16), text)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        clips = list(pool.map(make, range(count)))
    return [c for c in clips if len(c.audio) < (LONGEST_S - 1) * SAMPLE_RATE]


def noise(seed: int, count: int) -> list[Clip]:
    """Silence and white noise, labelled as no speech."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        level = rng.choice([0.0, 10 ** rng.uniform(-4, -1)])
        wave = level * rng.standard_normal(int(rng.uniform(0.3, 6) * SAMPLE_RATE))
        out.append(Clip((wave.clip(-1, 1) * 32767).astype(np.int16), ""))
    return out


def log_mel(audio: Tensor) -> Tensor:
    """float32 [batch, samples] -> [batch, 80, samples / 160] as Whisper has it, scaled clip by clip."""
    window = torch.hann_window(N_FFT)
    stft = torch.stft(audio, N_FFT, HOP_LENGTH, window=window, return_complex=True)
    mel = mel_filters("cpu", DIMS.n_mels) @ stft[..., :-1].abs() ** 2
    log = mel.clamp(min=1e-10).log10()
    return (torch.maximum(log, log.amax(dim=(1, 2), keepdim=True) - 8) + 4) / 4


@dataclasses.dataclass(frozen=True)
class Batch:
    """mel [batch, 80, frames], rows in and out [batch, length], CTC targets in a row, and their lengths."""

    mel: Tensor
    inputs: Tensor
    targets: Tensor
    words: Tensor
    word_counts: Tensor


def augment(clip: Clip, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """A clip with silence around it, at some loudness, with some noise: float32 [samples], and the seconds of
    silence before it."""
    wave = clip.audio.astype(np.float32) / 32768
    lead = int(rng.uniform(0, 0.5) * SAMPLE_RATE)
    wave = np.concatenate(
        [np.zeros(lead, np.float32), wave, np.zeros(int(rng.uniform(0, 0.3) * SAMPLE_RATE))]
    )
    if clip.text:
        wave = wave * rng.uniform(0.3, 1.0) / max(np.abs(wave).max(), 1e-4)
        if rng.random() < 0.8:
            power = np.sqrt(np.mean(wave**2)) * 10 ** (-rng.uniform(8, 40) / 20)
            wave = wave + power * rng.standard_normal(len(wave))
    return wave.astype(np.float32), lead / SAMPLE_RATE


def mask(mel: Tensor, content_frames: int, rng: np.random.Generator) -> None:
    """Hide some bands and some moments (Park et al. 2019, "SpecAugment"), and half of the time the padding.

    Args:
        mel: [80, frames], changed in place.
        content_frames: how many of them hold the clip.
    """
    if rng.random() < 0.5:
        mel[:, content_frames:] = 0.0
    for _ in range(2):
        f = int(rng.integers(0, 72))
        t = int(rng.integers(0, mel.shape[1] - 12))
        mel[f : f + int(rng.integers(0, 8))] = 0.0
        mel[:, t : t + int(rng.integers(0, 12))] = 0.0


def even_frames(samples: int) -> int:
    """Whole hops in some samples, rounded up and then down to an even number."""
    return -(-samples // HOP_LENGTH) // 2 * 2


def padded(rows: list[list[int]], filler: int) -> Tensor:
    """int64 [rows, longest], filled up at the end."""
    out = torch.full((len(rows), max(map(len, rows))), filler)
    for row, values in zip(out, rows, strict=True):
        row[: len(values)] = torch.tensor(values)
    return out


def ctc_targets(clips: list[Clip]) -> tuple[Tensor, Tensor]:
    """The numbers of all words in a row, int64 [words], and how many each clip has, int64 [batch]."""
    said = [[WORDS.index(word) + 1 for word in clip.text.lower().rstrip(".").split()] for clip in clips]
    return torch.tensor([word for words in said for word in words]), torch.tensor([len(w) for w in said])


def make_batch(clips: list[Clip], rng: np.random.Generator, *, full: bool) -> Batch:
    """Augment, pad and label; half are padded as `transcribe()` pads (mel 0.0), half with zeros."""
    waves: list[np.ndarray] = []
    leads: list[float] = []
    for clip in clips:
        wave, lead_s = augment(clip, rng)
        waves.append(wave)
        leads.append(lead_s)
    frames = N_FRAMES if full else even_frames(max(map(len, waves))) + 2 * int(rng.integers(1, 60))
    audio = torch.zeros(len(clips), frames * HOP_LENGTH)
    for i, wave in enumerate(waves):
        audio[i, : len(wave)] = torch.from_numpy(wave[: audio.shape[1]])
    mel = log_mel(audio)
    for row, wave in zip(mel, waves, strict=True):
        mask(row, len(wave) // HOP_LENGTH, rng)
    ends_s = [len(wave) / SAMPLE_RATE for wave in waves]
    rows = [label(*labelled, rng) for labelled in zip(clips, leads, ends_s, strict=True)]
    inputs = padded([given for given, _ in rows], ROW[TOKENIZER.eot])
    targets = padded([wanted for _, wanted in rows], IGNORE)
    return Batch(mel, inputs, targets, *ctc_targets(clips))


def label(clip: Clip, lead_s: float, end_s: float, rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """Decoder input and target rows: half of them with timestamps, `<|nospeech|>` alone for silence."""
    if not clip.text:
        return [ROW[TOKENIZER.sot]], [ROW[TOKENIZER.no_speech]]
    text = TOKENIZER.encode(" " + clip.text)
    if rng.random() < 0.5:

        def stamp(s: float) -> int:
            return TOKENIZER.timestamp_begin + round(s * 50 / TIMESTAMP_STEP) * TIMESTAMP_STEP

        text = [stamp(lead_s), *text, stamp(end_s)]
    else:
        text = [TOKENIZER.no_timestamps, *text]
    rows = [ROW[t] for t in (*TOKENIZER.sot_sequence, *text, TOKENIZER.eot)]
    return rows[:-1], rows[1:]


def batches(clips: list[Clip], size: int, rng: np.random.Generator) -> Iterator[list[Clip]]:
    """Endless batches of clips of about the same length, in random order."""
    while True:
        order = rng.permutation(len(clips))
        for chunk in np.array_split(order, max(1, len(order) // 1024)):
            chunk = sorted(chunk, key=lambda i: len(clips[i].audio))
            groups = [chunk[i : i + size] for i in range(0, len(chunk), size)]
            for g in rng.permutation(len(groups)):
                yield [clips[i] for i in groups[g]]


# --- training -----------------------------------------------------------------------------------------


def train(student: Student, clips: list[Clip], held_out: list[Clip], args: argparse.Namespace) -> None:
    """Two stages: short contexts (cheap, learns to listen), then half of the batches at the full 30 s."""
    rng = np.random.default_rng(args.seed)
    optimiser = torch.optim.AdamW(student.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01)
    short = batches(clips, 64, rng)
    long = batches(clips, 24, rng)
    total = args.short_steps + args.full_steps
    started = time.time()
    losses: list[float] = []
    for step in range(total):
        stage_two = step >= args.short_steps
        full = stage_two and step % 2 == 0
        rate = 1e-3 * min(1.0, step / 300)
        if stage_two:
            rate = 3e-4 + 3e-4 * math.cos(math.pi * (step - args.short_steps) / max(1, args.full_steps))
        for group in optimiser.param_groups:
            group["lr"] = rate
        batch = make_batch(next(long if full else short), rng, full=full)
        logits, ctc = student(batch.mel, batch.inputs)
        loss = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORE)
        losses.append(loss.item())
        if len(batch.words):
            spoken = batch.word_counts > 0
            frames = torch.full((int(spoken.sum()),), ctc.shape[1])
            log_probs = ctc[spoken].log_softmax(-1).transpose(0, 1)
            loss = loss + 0.1 * F.ctc_loss(
                log_probs, batch.words, frames, batch.word_counts[spoken], zero_infinity=True
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimiser.step()
        if step % 100 == 99:
            pace = (time.time() - started) / (step + 1)
            print(
                f"step {step + 1}/{total}  loss {np.mean(losses[-100:]):.3f}  {pace:.2f} s/step", flush=True
            )
        if step % 500 == 499:
            print(
                f"  word error rate, held-out voices: {word_error_rate(student.export(), held_out[:96]):.1%}"
            )
            save(student.export(), args.out)


def word_error_rate(model: Whisper, clips: list[Clip]) -> float:
    """Errors per word of stock `whisper.decode` on audio padded to 30 s."""
    heard: list[str] = []
    for i in range(0, len(clips), 16):
        group = clips[i : i + 16]
        padded = np.stack([whisper.pad_or_trim(c.audio.astype(np.float32) / 32768) for c in group])
        results = whisper.decode(model, log_mel(torch.from_numpy(padded)), language="en", fp16=False)
        assert isinstance(results, list)
        heard += [result.text for result in results]
    return jiwer.wer([clip.text for clip in clips], heard)


def save(model: Whisper, path: pathlib.Path) -> None:
    """Write what `whisper.load_model(path)` reads, in half precision."""
    state = {k: v.half() for k, v in model.state_dict().items()}
    torch.save({"dims": dataclasses.asdict(model.dims), "model_state_dict": state}, path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=pathlib.Path, default=CHECKPOINT)
    parser.add_argument("--clips", type=int, default=16000)
    parser.add_argument("--short-steps", type=int, default=2500)
    parser.add_argument("--full-steps", type=int, default=1700)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--start-from", type=pathlib.Path, help="a checkpoint of an earlier run, to go on from"
    )
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    # Denormal gradients slow x86 processors down by an order of magnitude.
    torch.set_flush_denormal(True)
    started = time.time()
    clips = synthesise(args.seed, args.clips, held_out=False) + noise(args.seed, args.clips // 20)
    held_out = synthesise(args.seed, 600, held_out=True)
    print(f"synthesised {len(clips) + len(held_out)} clips in {time.time() - started:.0f} s", flush=True)

    student = Student()
    if args.start_from:
        student.restore(whisper.load_model(str(args.start_from), device="cpu"))
    train(student, clips, held_out, args)
    model = student.export()
    save(model, args.out)
    rate = word_error_rate(model, held_out)
    print(f"{args.out}: word error rate on {len(held_out)} held-out clips {rate:.2%}")


if __name__ == "__main__":
    main()
