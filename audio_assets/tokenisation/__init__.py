"""Audio -> 1-D int16 tokens.

load.py        `load_tokeniser`: which tokeniser TOKENISER names
types.py       `Tokeniser`, what the pipeline asks of one; `TokenFormat`, how its tokens are read
simulated.py   the built-in one, random numbers
own.py         functions and classes of one's own
codec_name.py  how a codec is named, and which weights that is
codec.py       EnCodec, DAC, Mimi, NeuCodec and X-Codec 2, by transformers
layouts.py     how a codec's codebooks lie in one list, and back
"""

from audio_assets.tokenisation.load import code_version, load_tokeniser
from audio_assets.tokenisation.simulated import tokenise
from audio_assets.tokenisation.types import TokenFormat, Tokeniser

__all__ = ["TokenFormat", "Tokeniser", "code_version", "load_tokeniser", "tokenise"]
