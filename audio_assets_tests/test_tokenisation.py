"""`tokenise`, its reproducible form inside the pipeline, and tokenisers of one's own."""

import hashlib
import importlib
import importlib.metadata
import pathlib
import sys
import types
from collections.abc import Iterator

import numpy as np
import pytest
import torch

import audio_assets
from audio_assets.errors import ArgumentError
from audio_assets.tokenisation import code_version, load_tokeniser, simulated, tokenise

AUDIO = np.zeros(16_000, np.float32)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(simulated, "SIMULATED_INFERENCE_S", 0.0)


# --- tokenise -------------------------------------------------------------------------------------------


def test_tokenise_is_what_users_import():
    assert audio_assets.tokenise is tokenise


def test_tokens_are_one_dimensional_int16_of_random_length():
    lengths = set()
    for _ in range(300):
        tokens = tokenise(AUDIO)
        assert isinstance(tokens, torch.Tensor)
        assert tokens.dtype == torch.int16
        assert tokens.ndim == 1
        assert 20 <= len(tokens) <= 1000
        assert tokens.min() >= 0
        lengths.add(len(tokens))
    assert len(lengths) > 100


@pytest.mark.parametrize("audio", [None, [0.0], "a.flac", b"fLaC", torch.zeros(3), 1.0])
def test_anything_but_an_array_is_refused_by_its_type(audio: object):
    with pytest.raises(ValueError, match=f"NumPy array, not {type(audio).__name__}"):
        tokenise(audio)  # type: ignore[arg-type]


# --- inside the pipeline --------------------------------------------------------------------------------


def test_the_same_content_has_the_same_tokens_whatever_happened_before():
    simulated = load_tokeniser("simulated")
    first = simulated(AUDIO, "etag")
    torch.manual_seed(0)
    simulated(AUDIO, "another etag")
    np.testing.assert_array_equal(simulated(AUDIO, "etag"), first)
    assert first.dtype == np.int16
    # The figures are part of tables that exist: a change of seeding needs a new name of the tokeniser.
    assert (len(first), first[:3].tolist()) == (431, [2678, 841, 7952])


def test_other_content_has_other_tokens():
    simulated = load_tokeniser("simulated")
    assert len({simulated(AUDIO, str(i)).tobytes() for i in range(50)}) == 50


# --- one's own ------------------------------------------------------------------------------------------


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("own_tokenisers")
    monkeypatch.setitem(sys.modules, "own_tokenisers", module)
    return module


def test_ones_own_tokeniser_gets_the_audio(own: types.ModuleType):
    own.length = lambda audio: [len(audio), -1]  # type: ignore[attr-defined]
    tokens = load_tokeniser("own_tokenisers:length")(AUDIO[:7], "etag")
    assert tokens.dtype == np.int16
    assert tokens.tolist() == [7, -1]


@pytest.mark.parametrize(
    "made",
    [torch.tensor([1, 2]), np.array([1, 2], np.int64), np.array([1, 2], np.uint8), [1, 2], (1, 2)],
    ids=lambda made: type(made).__name__,
)
def test_whole_numbers_of_any_kind_are_tokens(own: types.ModuleType, made: object):
    own.tokens = lambda audio: made  # type: ignore[attr-defined]
    assert load_tokeniser("own_tokenisers:tokens")(AUDIO, "etag").tolist() == [1, 2]


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        ([1.5], r"float64 \[1\]; wanted integers"),
        ([[1, 2]], r"int64 \[1, 2\]"),
        (7, r"int64 \[\]"),
        (["a"], "wanted integers"),
        (None, "wanted integers"),
        ([32_768], "from 32768 to 32768, which int16 cannot hold"),
        ([0, -32_769], "from -32769 to 0, which int16 cannot hold"),
    ],
)
def test_what_is_no_row_of_tokens_is_refused(own: types.ModuleType, made: object, reason: str):
    own.tokens = lambda audio: made  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=reason):
        load_tokeniser("own_tokenisers:tokens")(AUDIO, "etag")


@pytest.mark.parametrize(
    "name", ["", "simulate", "no.such.module:f", "json:no_such", "json", ":f", "math:pi"]
)
def test_a_name_of_nothing_is_refused_before_any_audio(name: str):
    with pytest.raises(
        ArgumentError, match=f"name='{name}' is neither simulated, nor a codec, nor package.module:function"
    ):
        load_tokeniser(name)


# --- what names the version of one's own ----------------------------------------------------------------


class OwnModules:
    """Modules that somebody writes into a folder on the path, and changes."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.names: set[str] = set()

    def write(self, name: str, source: str) -> str:
        """Write a module, which the next import runs, as in a new process; gives its hash as a row has it."""
        path = self.folder / f"{name.replace('.', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
        self.names.add(name)
        self.forget()
        return f"sha256={hashlib.sha256(source.encode()).hexdigest()[:12]}"

    def forget(self) -> None:
        for name in self.names:
            sys.modules.pop(name, None)
        importlib.invalidate_caches()


@pytest.fixture
def own_modules(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OwnModules]:
    # A file that changes twice in a second is compiled again only where nothing was kept.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(tmp_path)
    modules = OwnModules(tmp_path)
    yield modules
    modules.forget()


def test_the_built_in_tokeniser_keeps_the_name_that_rows_carry():
    assert load_tokeniser("simulated").identity == "simulated"


def test_a_function_is_known_by_the_source_that_defines_it(own_modules: OwnModules):
    first = own_modules.write("codec_v1", "def tokens(audio): return [1]")
    assert load_tokeniser("codec_v1:tokens").identity == f"codec_v1:tokens {first}"
    second = own_modules.write("codec_v1", "def tokens(audio): return [2]")
    assert second != first
    assert load_tokeniser("codec_v1:tokens").identity == f"codec_v1:tokens {second}"


def test_code_that_runs_keeps_its_identity_when_its_file_changes_under_it(own_modules: OwnModules):
    own_modules.write("codec_v1", "def tokens(audio): return [1]")
    running = load_tokeniser("codec_v1:tokens")
    (own_modules.folder / "codec_v1.py").write_text("def tokens(audio): return [2]")
    again = load_tokeniser("codec_v1:tokens")
    assert again(AUDIO, "etag").tolist() == running(AUDIO, "etag").tolist() == [1]
    assert again.identity == running.identity


def test_what_a_package_imports_is_known_by_where_it_is_defined(own_modules: OwnModules):
    own_modules.write("codecs_of_ours.__init__", "from codecs_of_ours.impl import Codec, tokens")
    digest = own_modules.write(
        "codecs_of_ours.impl",
        "def tokens(audio): return [1]\nclass Codec:\n    def __call__(self, audio): return [2]\n",
    )
    own_modules.names |= {"codecs_of_ours"}
    own_modules.forget()
    assert load_tokeniser("codecs_of_ours:tokens").identity == f"codecs_of_ours:tokens {digest}"
    made = load_tokeniser("codecs_of_ours:Codec")
    assert made.identity == f"codecs_of_ours:Codec {digest}"
    assert made(AUDIO, "etag").tolist() == [2]


def test_an_object_of_a_class_from_elsewhere_is_known_by_both_sources(own_modules: OwnModules):
    own_modules.write("codec_class", "class Codec:\n    def __call__(self, audio): return [7]\n")

    def identity(codebook: int) -> str:
        own_modules.write("codec_made", f"from codec_class import Codec\ncodec = Codec()  # {codebook}\n")
        return load_tokeniser("codec_made:codec").identity

    assert identity(1) == identity(1) != identity(2)


@pytest.mark.parametrize("kind", ["function", "class"])
def test_an_identity_of_its_own_names_it_and_its_code_does_not(own_modules: OwnModules, kind: str):
    source = {
        "function": "def codec(audio): return [1]\ncodec.identity = 'weights 3'\n",
        "class": "class codec:\n    identity = 'weights 3'\n    def __call__(self, audio): return [1]\n",
    }[kind]
    own_modules.write("codec_v1", source)
    assert load_tokeniser("codec_v1:codec").identity == "codec_v1:codec weights 3"
    own_modules.write("codec_v1", source + "# another line\n")
    assert load_tokeniser("codec_v1:codec").identity == "codec_v1:codec weights 3"


@pytest.mark.parametrize("identity", ["''", "' '", "3", "b'x'"])
def test_an_identity_that_is_no_text_is_refused(own_modules: OwnModules, identity: str):
    own_modules.write("codec_v1", f"def codec(audio): return [1]\ncodec.identity = {identity}\n")
    with pytest.raises(
        ArgumentError, match=r"name='codec_v1:codec' has the identity .*; it should be a text"
    ):
        load_tokeniser("codec_v1:codec")


def test_compiled_code_is_known_by_the_version_of_its_distribution():
    # A function in C, whose module is a file of no source.
    name = "soxr.soxr_ext:libsoxr_version"
    version = importlib.metadata.version("soxr")
    assert load_tokeniser(name).identity == f"{name} soxr={version}"


def test_compiled_code_of_no_distribution_has_to_name_its_version():
    with pytest.raises(ArgumentError, match=r"name='math:floor' has no source file .* give it an attribute"):
        load_tokeniser("math:floor")


# --- what Dagster knows the code by ---------------------------------------------------------------------


def test_the_code_of_ones_own_is_known_by_its_file_without_an_import(own_modules: OwnModules):
    first = own_modules.write("codec_v1", "raise ImportError('nobody may import this')")
    assert code_version("codec_v1:tokens") == f"codec_v1:tokens {first}"
    second = own_modules.write("codec_v1", "raise ImportError('nor this')")
    assert code_version("codec_v1:tokens") == f"codec_v1:tokens {second}" != first


def test_the_code_inside_a_package_is_known_without_importing_the_package(own_modules: OwnModules):
    own_modules.write("codecs_of_yours.__init__", "raise ImportError('nobody may import this')")
    digest = own_modules.write("codecs_of_yours.impl", "def tokens(audio): return [1]")
    package = own_modules.write("codecs_of_yours.__init__", "raise ImportError('nobody may import this!')")
    assert code_version("codecs_of_yours.impl:tokens") == f"codecs_of_yours.impl:tokens {digest}"
    assert code_version("codecs_of_yours:tokens") == f"codecs_of_yours:tokens {package}"
    assert "codecs_of_yours" not in sys.modules


@pytest.mark.parametrize(
    "name",
    ["simulated", "", ":", "..:f", ".a:f", "no.such.module:f", "math:floor", "soxr.soxr_ext:f", "math.pi:f"],
)
def test_what_has_no_source_file_is_known_by_its_name_alone(name: str):
    assert code_version(name) == name


def test_one_thread_at_a_time_unless_a_tokeniser_says_more(own_modules: OwnModules):
    own_modules.write(
        "codecs_by_threads",
        "def plain(audio): return [1]\n"
        "def safe(audio): return [1]\n"
        "safe.thread_safe = True\n"
        "class Safe:\n"
        "    thread_safe = True\n"
        "    def __call__(self, audio): return [1]\n",
    )
    found = {
        name: load_tokeniser(f"codecs_by_threads:{name}").thread_safe for name in ("plain", "safe", "Safe")
    }
    assert found == {"plain": False, "safe": True, "Safe": True}
    assert load_tokeniser("simulated").thread_safe
