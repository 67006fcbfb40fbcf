"""Whether a code server answers, the one behind a proxy."""

import os
import pathlib
import signal
import subprocess
import sys
import time

from audio_assets.defs.internals.code_server_ping import answers
from audio_assets.settings import PROJECT
from audio_assets_tests.test_services import processes

SECONDS = 120


def test_a_proxy_without_its_server_does_not_answer(tmp_path: pathlib.Path):
    socket = tmp_path / "socket"
    assert not answers(socket, 1)
    module = ["--module-name", "audio_assets.definitions", "--working-directory", str(PROJECT)]
    command = [sys.executable, "-m", "dagster", "code-server", "start", "--socket", str(socket), *module]
    proxy = subprocess.Popen(command, cwd=PROJECT, start_new_session=True)
    try:
        deadline = time.monotonic() + SECONDS
        while not answers(socket, 5):
            assert time.monotonic() < deadline
            time.sleep(0.5)
        [server] = [
            pid for pid, _, session, said in processes() if session == proxy.pid and "api grpc" in said
        ]
        os.kill(server, signal.SIGKILL)
        time.sleep(1)
        assert proxy.poll() is None
        assert not answers(socket, 5)
    finally:
        os.killpg(proxy.pid, signal.SIGKILL)
        proxy.wait()
