"""What processes decode is what a thread decodes, and no object costs another one its row."""

import concurrent.futures
import dataclasses
import logging
import os
import pathlib
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from audio_assets import speech as speech_module
from audio_assets.audio import BUILT_IN, DECODERS, Audio, Decoder, decode, processes, read_flac
from audio_assets.audio.processes import DecodingProcesses
from audio_assets.errors import AudioError, DecoderFailedError
from audio_assets.speech import SpeechPass, Tokenising, Transcribing
from audio_assets_tests.support.audio import flac
from audio_assets_tests.support.decoders import PID_FILE, read_noted
from audio_assets_tests.support.encoded import FORMATS, RATE_HZ, encode, speech
from audio_assets_tests.support.places import LocalPlace
from audio_assets_tests.test_speech import Bench


@pytest.fixture(scope="module")
def some() -> DecodingProcesses:
    return DecodingProcesses()


@pytest.fixture
def pids(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Where `read_noted` notes its processes."""
    monkeypatch.setenv(PID_FILE, str(tmp_path / "pids"))
    return tmp_path / "pids"


def outcome(decoded: Callable[..., Audio], *arguments: object, **options: Any) -> tuple[str, list[bytes]]:
    """Of audio all that it says and its samples at each rate, or the error."""
    try:
        audio = decoded(*arguments, **options)
    except AudioError as e:
        return str(e), []
    samples = [audio.samples.tobytes(), *(array.tobytes() for array in audio.resampled.values())]
    rates = dict.fromkeys(audio.resampled, 0)
    return repr(dataclasses.replace(audio, samples=np.zeros(0), resampled=rates)), samples


# --- the same as in a thread ----------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_sound_and_damaged_objects_of_each_format(form: str, some: DecodingProcesses):
    # More than one block.
    body = encode(form, speech(33.0, 2))
    for given in (body, body[: len(body) // 2], body[:100], b"junk", b""):
        options = {"evidence": True, "rates_hz": (24_000, RATE_HZ)}
        expected = outcome(decode, BUILT_IN[form], given, **options)
        assert outcome(some.decode, BUILT_IN[form], given, **options) == expected
        assert len(expected[1]) == 3 or given != body


def test_many_threads_get_each_their_own(some: DecodingProcesses):
    bodies = [flac(0.1 + seed / 100, seed=seed) for seed in range(60)]
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda body: some.decode(read_flac, body).samples.tobytes(), bodies))
    assert found == [decode(read_flac, body).samples.tobytes() for body in bodies]


def test_memory_is_admitted_block_by_block_and_what_admitting_raises_passes_through(some: DecodingProcesses):
    body = flac(65.0)
    admitted: list[int] = []
    whole = some.decode(read_flac, body, admitted.append)
    assert len(admitted) == 3
    assert sum(admitted) == whole.samples.nbytes

    def full(size: int) -> None:
        raise concurrent.futures.CancelledError

    for _ in range(3):
        with pytest.raises(concurrent.futures.CancelledError):
            some.decode(read_flac, body, full)
    # Nothing of the object that was given up is left in the way of the next.
    small = flac(0.2, seed=1)
    assert some.decode(read_flac, small).samples.tobytes() == decode(read_flac, small).samples.tobytes()


# --- where it cannot be done by processes ---------------------------------------------------------------


def of_a_script() -> Decoder:
    """A decoder that another process cannot import, as it is a function within a function."""

    def read(body: bytes):
        return read_flac(body)

    return read


def test_a_decoder_that_cannot_be_imported_there_works_in_the_thread(
    some: DecodingProcesses, monkeypatch: pytest.MonkeyPatch
):
    body = flac(0.2)
    expected = decode(read_flac, body).samples.tobytes()
    assert some.decode(of_a_script(), body).samples.tobytes() == expected
    module = type(sys)("module_of_a_script")
    exec("from audio_assets.audio import read_flac\ndef read(body): return read_flac(body)", vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert some.decode(module.read, body).samples.tobytes() == expected
    assert some.decode(read_flac, body).samples.tobytes() == expected


def test_a_large_object_is_decoded_where_it_is(
    some: DecodingProcesses, pids: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    body = flac(1.0)
    monkeypatch.setattr(processes, "LARGEST_BODY", len(body) - 1)
    DecodingProcesses().decode(read_noted, body)
    monkeypatch.setattr(processes, "LARGEST_BODY", len(body))
    DecodingProcesses().decode(read_noted, body)
    here, there = pids.read_text().split()
    assert here == str(os.getpid()) != there


@pytest.mark.parametrize("program", ["no such program", "raise SystemExit(3)"])
def test_where_no_process_starts_threads_decode_and_a_warning_says_so(
    program: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    if program == "no such program":
        monkeypatch.setattr(sys, "executable", "/no/such/program")
    else:
        monkeypatch.setattr(processes, "_PROGRAM", program)
    new = DecodingProcesses()
    caplog.set_level(logging.WARNING)
    body = flac(0.2)
    for _ in range(4):
        assert new.decode(read_flac, body).samples.tobytes() == decode(read_flac, body).samples.tobytes()
    [said] = caplog.messages
    assert said.startswith("no process that decodes can be started (")


# --- faults ---------------------------------------------------------------------------------------------


def test_an_object_that_ends_the_process_which_decodes_it_is_tried_twice(pids: pathlib.Path):
    one = DecodingProcesses()
    with pytest.raises(AudioError, match=r"died \(SIGSEGV, SIGSEGV\)"):
        one.decode(read_noted, b"kill")
    assert len(set(pids.read_text().split())) == 2
    assert one.decode(read_noted, flac(0.2)).duration_s == pytest.approx(0.2)


def test_processes_that_were_killed_meanwhile_are_replaced(pids: pathlib.Path):
    some = DecodingProcesses()
    together = threading.Barrier(4)

    def wait_for_others(size: int) -> None:
        together.wait()

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda body: some.decode(read_noted, body, wait_for_others), [flac(0.2)] * 4))
    for pid in (killed := set(map(int, pids.read_text().split()))):
        os.kill(pid, signal.SIGKILL)
        # Until it is gone, which `some` is still to see.
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert len(killed) == 4
    assert some.decode(read_noted, flac(0.2)).duration_s == pytest.approx(0.2)


def test_a_fault_of_a_decoder_is_told_and_leaves_the_process(pids: pathlib.Path):
    one = DecodingProcesses()
    with pytest.raises(DecoderFailedError, match=r"^a fault of the decoder$"):
        one.decode(read_noted, b"raise")
    one.decode(read_noted, flac(0.2))
    assert len(set(pids.read_text().split())) == 1


def test_threads_that_wait_for_memory_hold_no_process_that_another_one_needs(
    local_place: LocalPlace, monkeypatch: pytest.MonkeyPatch
):
    bench = Bench(local_place)
    keys = [f"p225/{number}.flac" for number in range(60)]
    for number, key in enumerate(keys):
        bench.place.put(key, flac(0.1, seed=number))
    transcribing = Transcribing(bench.transcripts, bench.identity, bench.recogniser.load, on_gpu=True)
    work = SpeechPass(bench.audio, bench.inventory, transcribing)
    monkeypatch.setattr(speech_module, "DECODED_BYTES_AHEAD", 1)
    [finished] = work.run(bench.take_inventory())
    assert finished.statuses == {"transcripts": {"ok": len(keys)}}


def test_a_pass_beside_a_gpu_decodes_in_processes_and_makes_the_same_tables(
    local_place: LocalPlace, pids: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(DECODERS, ".noted", read_noted)
    # Those of this process may have been started where PID_FILE was another.
    monkeypatch.setattr(speech_module, "decoding_processes", DecodingProcesses)
    bench = Bench(local_place)
    bodies = {"a": flac(0.1), "b": flac(0.2, seed=1, rate=48_000), "bad": b"junk", "raise": b"raise"}
    for name, body in bodies.items():
        bench.place.put(f"p225/{name}.noted", body)
    partitions = bench.take_inventory()

    def made(*, on_gpu: bool) -> tuple[dict, dict]:
        transcribing = Transcribing(bench.transcripts, bench.identity, bench.recogniser.load, on_gpu)
        tokenising = Tokenising(bench.tokens, bench.tokeniser)
        pids.write_text("")
        work = SpeechPass(bench.audio, bench.inventory, transcribing, tokenising, recompute=True)
        list(work.run(partitions))
        return bench.rows(bench.transcripts), bench.rows(bench.tokens)

    expected = made(on_gpu=False)
    assert set(pids.read_text().split()) == {str(os.getpid())}
    assert made(on_gpu=True) == expected
    assert str(os.getpid()) not in pids.read_text().split()
    # A thread would have ended this process.
    bench.place.put("p225/kill.noted", b"kill")
    partitions = bench.take_inventory()
    transcripts, tokens = made(on_gpu=True)
    assert "died (SIGSEGV, SIGSEGV)" in transcripts.pop("p225/kill.noted")["error"]
    assert "died (SIGSEGV, SIGSEGV)" in tokens.pop("p225/kill.noted")["error"]
    assert (transcripts, tokens) == expected
