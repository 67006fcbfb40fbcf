"""Neural audio codecs of transformers as tokenisers: EnCodec, DAC, Mimi, NeuCodec, X-Codec 2.

Each object goes through the codec alone. A batch gives other tokens with some codecs, and is no faster with
the others (docs/tokens.md has the figures).

torch and transformers are imported where they are used: Dagster loads code locations without them.
"""

import contextlib
import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from audio_assets.errors import ArgumentError, CodecError
from audio_assets.parallel import Share, threads_of_torch
from audio_assets.tokenisation import layouts
from audio_assets.tokenisation.codec_name import (
    CodecName,
    check_installed,
    commit_of,
    identity_of,
    weights_of,
)
from audio_assets.tokenisation.types import TokenFormat

PIECE_S = 120
"""Longer audio goes through a codec in pieces of this many seconds, which bounds the memory."""
SHORTEST_PIECE_S = 1
"""What is left at the end is part of the piece before it if it is shorter."""


@dataclasses.dataclass(frozen=True)
class _Family:
    """What differs between the codecs: how each is described, asked and answered.

    Attributes:
        input_rate: of a configuration, sample rate in Hz of what is encoded.
        output_rate: likewise, of what is decoded.
        frame_samples: likewise, samples at the input rate for each frame.
        codebooks: of a configuration and the options, how many codebooks the codec gives.
        codebook_size: of a configuration.
        encode: of a model, the features and the options, integers [codebooks, frames].
        decode: of a model and codes [codebooks, frames], audio [samples].
    """

    input_rate: Callable[[Any], int]
    output_rate: Callable[[Any], int]
    frame_samples: Callable[[Any], int]
    codebooks: Callable[[Any, CodecName], int]
    codebook_size: Callable[[Any], int]
    encode: Callable[[Any, Any, CodecName], Any]
    decode: Callable[[Any, Any], Any]


class CodecTokeniser:
    """A codec as a tokeniser. Its weights are loaded at its first call, and kept by the process.

    Args:
        codec: which one, and how it is used.
        device: `auto` for CUDA if there is any, `cpu`, `cuda` or `cuda:N`.

    Raises:
        ArgumentError: there is no such codec, or transformers is not installed.
    """

    def __init__(self, codec: CodecName, device: str = "auto") -> None:
        check_installed(codec)
        self._codec = codec
        self._device = device
        self.identity = identity_of(codec)

    thread_safe = True

    @property
    def sample_rate_hz(self) -> int:
        config = _config(self._codec)
        return _family(self._codec, config).input_rate(config)

    @property
    def token_format(self) -> TokenFormat:
        """How the tokens are read.

        Raises:
            ArgumentError: the codec is none of these, or cannot do what the options say.
        """
        codec = self._codec
        config = _config(codec)
        family = _family(codec, config)
        available = family.codebooks(config, codec)
        if codec.codebooks and codec.codebooks > available:
            raise _wrong(codec, f"codebooks={codec.codebooks}, and the codec gives {available}")
        made = TokenFormat(
            codec=_loadable(codec),
            codebooks=layouts.LAYOUTS[codec.layout].codebooks_of(codec.codebooks or available),
            codebook_size=family.codebook_size(config),
            frame_rate_hz=family.input_rate(config) / family.frame_samples(config),
            codec_sample_rate_hz=family.output_rate(config),
            token_layout=codec.layout,
        )
        layouts.check(made, codec.codebooks or available)
        return made

    def __call__(self, audio: np.ndarray, etag: str) -> np.ndarray:
        """Tokenise one object.

        Args:
            audio: float32 [samples], mono at `sample_rate_hz`.
            etag: is not used; the same audio has the same tokens.

        Returns:
            int16 [tokens], as `token_format` says.

        Raises:
            CodecError: the weights cannot be loaded.
        """
        codes = load_codec(self._codec, self._device).encode_pieces(audio, self._codec)
        return layouts.flatten(codes[: self.token_format.codebooks], self.token_format)


class LoadedCodec:
    """A codec with its weights.

    Args:
        codec: which one; its options do not matter.
        device: as torch names it.
    """

    def __init__(self, codec: CodecName, device: str) -> None:
        import torch
        import transformers

        config = _config(codec)
        location = {"revision": None if codec.is_folder else commit_of(codec)}
        self._family = _family(codec, config)
        self._rate_hz = self._family.input_rate(config)
        self._frame = self._family.frame_samples(config)
        self._piece_frames = PIECE_S * self._rate_hz // self._frame
        self._rest_frames = SHORTEST_PIECE_S * self._rate_hz // self._frame
        self._device = torch.device(device)
        self._streams = threading.local()
        # A clip goes through on one core, others beside it: EnCodec gives other tokens on other numbers of
        # cores, and a short clip has no work for many.
        self._cores = threads_of_torch("codec") if self._device.type == "cpu" else None
        self._samples = Share(PIECE_S * self._rate_hz)
        # A bar for each file is no line of a run's log.
        transformers.utils.logging.disable_progress_bar()
        try:
            self._features = transformers.AutoFeatureExtractor.from_pretrained(codec.name, **location)
            model = transformers.AutoModel.from_pretrained(codec.name, dtype=torch.float32, **location)
            self._model = _without_overhead(model.eval().to(self._device))
            if self._device.type == "cuda":
                # The threads' streams do not wait for the one that copies the weights.
                torch.cuda.synchronize(self._device)
        except Exception as e:  # Whatever the files, the network or the device say.
            raise CodecError(f"the codec {codec.location!r} cannot be loaded: {e}") from e

    def encode_pieces(self, audio: np.ndarray, options: CodecName) -> np.ndarray:
        """The codes of audio of any length: `encode` of each piece of `PIECE_S`.

        A piece knows nothing of the one before it, so that its first frames are a little different.
        """
        pieces = list(_pieces(len(audio), self._piece_frames * self._frame, self._rest_frames * self._frame))
        codes = [self._encode_piece(audio[piece], options) for piece in pieces]
        # Some codecs give a frame more for padding, which belongs to the last piece alone.
        codes[:-1] = [found[:, : self._piece_frames] for found in codes[:-1]]
        return np.concatenate(codes, axis=1)

    def _encode_piece(self, audio: np.ndarray, options: CodecName) -> np.ndarray:
        """As `encode`, called by any number of threads."""
        if self._cores is None:
            return self.encode(audio, options)
        # What a codec holds meanwhile grows with the audio.
        with self._samples.of(len(audio)):
            return self._cores.submit(self.encode, audio, options).result()

    def decode_pieces(self, codes: np.ndarray) -> np.ndarray:
        """The audio of what `encode_pieces` gives, decoded piece by piece."""
        pieces = _pieces(codes.shape[1], self._piece_frames, self._rest_frames)
        return np.concatenate([self.decode(codes[:, piece]) for piece in pieces])

    def encode(self, audio: np.ndarray, options: CodecName) -> np.ndarray:
        """The codes of one piece of audio, as the library gives them for it alone.

        Args:
            audio: float32 [samples], mono at the codec's rate.
            options: bandwidth and codebooks.

        Returns:
            int64 [codebooks, frames].
        """
        import torch

        features = self._features(audio, sampling_rate=self._rate_hz, return_tensors="pt")
        with torch.inference_mode(), self._stream():
            on_device = {name: value.to(self._device) for name, value in features.items()}
            codes = self._family.encode(self._model, on_device, options)
            return codes.cpu().numpy()

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Audio of codes.

        Args:
            codes: integers [codebooks, frames]; the codebooks may be fewer than `encode` gives.

        Returns:
            float32 [samples], mono at the rate that the codec decodes to.
        """
        import torch

        with torch.inference_mode(), self._stream():
            on_device = torch.from_numpy(np.ascontiguousarray(codes)).to(self._device)
            return self._family.decode(self._model, on_device).float().cpu().numpy().reshape(-1)

    def _stream(self) -> contextlib.AbstractContextManager[object]:
        """On CUDA a stream for each thread: they run side by side, and beside Whisper's."""
        import torch

        if self._device.type != "cuda":
            return contextlib.nullcontext()
        if not hasattr(self._streams, "own"):
            self._streams.own = torch.cuda.Stream(self._device)
        return torch.cuda.stream(self._streams.own)


def _without_overhead(model: Any) -> Any:
    """The same model without work that each call repeats and that changes no value.

    A normalised weight is computed once. The shapes of convolutions, which EnCodec and Mimi keep as tensors,
    stay on the CPU: on CUDA each convolution would wait for the device to read them.
    """
    from torch.nn.utils import parametrize

    for module in model.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
        for name in ("stride", "kernel_size", "padding_total"):
            if name in module._buffers:
                module._buffers[name] = module._buffers[name].cpu()
    return model


def _pieces(length: int, piece: int, rest: int) -> Iterator[slice]:
    """Cut a length into pieces; what is left at the end is at least `rest`."""
    start = 0
    while length - start >= piece + rest:
        yield slice(start, start + piece)
        start += piece
    yield slice(start, length)


_loaded: dict[tuple[str, str, str], LoadedCodec] = {}
"""The codec of this process, by its location, the version of its weights and its device."""
_loading = threading.Lock()


def load_codec(codec: CodecName, device: str = "auto") -> LoadedCodec:
    """A codec with its weights, which the process keeps until another one is asked for.

    Raises:
        ArgumentError: there is no such codec.
        CodecError: its weights cannot be loaded.
    """
    with _loading:
        key = (codec.location, weights_of(codec), _device(device))
        if key not in _loaded:
            # The earlier one goes first: two may not fit into the memory of the device.
            _loaded.clear()
            _loaded[key] = LoadedCodec(codec, _device(device))
        return _loaded[key]


def _device(device: str) -> str:
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _loadable(codec: CodecName) -> str:
    """What loads the very same weights again."""
    return codec.name if codec.is_folder else f"{codec.name}@{commit_of(codec)}"


def _config(codec: CodecName) -> Any:
    return _config_of(codec.name, weights_of(codec), None if codec.is_folder else commit_of(codec))


@functools.lru_cache(maxsize=8)
def _config_of(name: str, weights: str, revision: str | None) -> Any:
    import transformers

    try:
        return transformers.AutoConfig.from_pretrained(name, revision=revision)
    except Exception as e:
        raise ArgumentError("name", f"={name!r} is no codec that transformers can load: {e}") from e


def _wrong(codec: CodecName, what: str) -> ArgumentError:
    return ArgumentError("name", f"={codec.location!r} has {what}")


# --- the codecs -----------------------------------------------------------------------------------------


def _family(codec: CodecName, config: Any) -> _Family:
    """What a codec is, by its configuration.

    Raises:
        ArgumentError: it is none of these, or one that takes stereo or scales its audio.
    """
    family = _FAMILIES.get(config.model_type)
    if family is None:
        raise _wrong(codec, f"the model type {config.model_type!r}; codecs are {', '.join(_FAMILIES)}")
    if getattr(config, "audio_channels", 1) != 1 or getattr(config, "normalize", False):
        raise _wrong(codec, "stereo or scaled audio, which tokens alone do not give back; take a mono codec")
    if codec.bandwidth and config.model_type != "encodec":
        raise _wrong(codec, f"a bandwidth, which {config.model_type} does not take; set codebooks instead")
    return family


def _encodec_codebooks(config: Any, codec: CodecName) -> int:
    bandwidth = codec.bandwidth or config.target_bandwidths[0]
    if bandwidth not in config.target_bandwidths:
        offered = ", ".join(f"{value:g}" for value in config.target_bandwidths)
        raise _wrong(codec, f"bandwidth={bandwidth:g}; this codec has {offered} kbit/s")
    bits_per_s = config.codebook_nbits * config.frame_rate
    return max(1, int(bandwidth * 1000 // bits_per_s))


def _encode_encodec(model: Any, features: Any, codec: CodecName) -> Any:
    given = features["input_values"], features["padding_mask"]
    bandwidth = codec.bandwidth or model.config.target_bandwidths[0]
    return model.encode(*given, bandwidth).audio_codes[0, 0]


def _encode_dac(model: Any, features: Any, codec: CodecName) -> Any:
    return model.encode(features["input_values"], n_quantizers=codec.codebooks).audio_codes[0]


def _encode_mimi(model: Any, features: Any, codec: CodecName) -> Any:
    given = features["input_values"], features["padding_mask"]
    return model.encode(*given, num_quantizers=codec.codebooks).audio_codes[0]


def _single_codebook(input_rate: str, output_rate: str) -> _Family:
    """NeuCodec and X-Codec 2, by the names that their configurations give the rates."""
    return _Family(
        input_rate=lambda config: getattr(config, input_rate),
        output_rate=lambda config: getattr(config, output_rate),
        frame_samples=lambda config: int(np.prod(config.downsampling_ratios)),
        codebooks=lambda config, codec: 1,
        codebook_size=lambda config: int(np.prod(config.quantization_levels)),
        encode=lambda model, features, codec: model.encode(**features).audio_codes[0],
        decode=lambda model, codes: model.decode(audio_codes=codes[None]).audio_values,
    )


_FAMILIES: dict[str, _Family] = {
    "encodec": _Family(
        input_rate=lambda config: config.sampling_rate,
        output_rate=lambda config: config.sampling_rate,
        frame_samples=lambda config: config.hop_length,
        codebooks=_encodec_codebooks,
        codebook_size=lambda config: config.codebook_size,
        encode=_encode_encodec,
        decode=lambda model, codes: model.decode(codes[None, None], [None]).audio_values,
    ),
    "dac": _Family(
        input_rate=lambda config: config.sampling_rate,
        output_rate=lambda config: config.sampling_rate,
        frame_samples=lambda config: config.hop_length,
        codebooks=lambda config, codec: codec.codebooks or config.n_codebooks,
        codebook_size=lambda config: config.codebook_size,
        encode=_encode_dac,
        decode=lambda model, codes: model.decode(audio_codes=codes[None]).audio_values,
    ),
    "mimi": _Family(
        input_rate=lambda config: config.sampling_rate,
        output_rate=lambda config: config.sampling_rate,
        frame_samples=lambda config: config.frame_size,
        codebooks=lambda config, codec: codec.codebooks or config.num_quantizers,
        codebook_size=lambda config: config.codebook_size,
        encode=_encode_mimi,
        decode=lambda model, codes: model.decode(codes[None]).audio_values,
    ),
    "neucodec": _single_codebook("input_sampling_rate", "output_sampling_rate"),
    "xcodec2": _single_codebook("sampling_rate", "sampling_rate"),
}
"""By `model_type` of the configuration. How each encodes and decodes is described in its page of the
documentation of transformers (`docs/source/en/model_doc/`)."""
