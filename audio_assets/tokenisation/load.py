"""Which tokeniser the setting TOKENISER names."""

from audio_assets.tokenisation import codec_name, own
from audio_assets.tokenisation.simulated import SIMULATED, Simulated
from audio_assets.tokenisation.types import Tokeniser


def load_tokeniser(name: str, device: str = "auto") -> Tokeniser:
    """The tokeniser that a setting names. Imports the module of one's own; loads no weights of a codec.

    Args:
        name: `simulated`; a codec of transformers, as `codec_name` says; or `package.module:name` for one's
            own: a function, or a class, which is made without arguments. It is called with audio (float32
            [samples], mono, 16 kHz) and gives integers [tokens] that fit int16. It may have attributes:

            identity: a text that names its version, such as that of its weights. Without it, a hash of the
                source file that defines it takes the place. That hash knows of no other file.
            thread_safe: True lets several threads call it at once; without it, one thread does at a time.
            sample_rate_hz: of the audio that it takes instead of 16 kHz.
            token_format: a `TokenFormat`, whose values the rows then have.
        device: where a codec runs: `auto` for CUDA if there is any, `cpu`, `cuda` or `cuda:N`.

    Raises:
        ArgumentError: there is no such tokeniser, or nothing names its version.
    """
    if name == SIMULATED:
        return Simulated()
    if codec_name.is_codec(name):
        from audio_assets.tokenisation.codec import CodecTokeniser

        return CodecTokeniser(codec_name.parse(name), device)
    return own.load(name)


def code_version(name: str) -> str:
    """What Dagster knows the code of a tokeniser by; imports none of it, and asks nobody.

    Args:
        name: as `load_tokeniser` takes it.

    Returns:
        The name, with a hash of the source file of its module, or the identity of a codec's folder. Where
        there is neither, the name alone.
    """
    try:
        if codec_name.is_codec(name):
            codec = codec_name.parse(name)
            return codec_name.identity_of(codec) if codec.is_folder else name
        return f"{name} sha256={own.source_version(name)}"
    except Exception:  # It is built in, compiled or not there; whatever else is wrong shows in a run.
        return name
