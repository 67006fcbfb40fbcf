"""A failed run is told to a webhook, which is a real HTTP server here."""

import contextlib
import http.server
import json
import pathlib
import shutil
import threading
from collections.abc import Iterator

import dagster as dg
import pytest

from audio_assets.definitions import defs
from audio_assets.errors import ArgumentError, NotificationError
from audio_assets.partitions import FolderMinute
from audio_assets.settings import FAILURE_WEBHOOK_URL, PROJECT
from audio_assets.webhook import post
from audio_assets_tests.support.audio import UPLOADED
from audio_assets_tests.support.environment import clear_settings

SECRET = "T000-secret"
KEYS = [FolderMinute(folder, UPLOADED.replace(second=0)).key for folder in ("p225", "p226")]


class Webhook:
    """A server that takes what is posted, or refuses it."""

    def __init__(self, code: int = 200) -> None:
        self.bodies: list[dict] = []
        webhook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                webhook.bodies.append({"type": self.headers["Content-Type"], **json.loads(body)})
                self.send_response(code)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None: ...

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/services/{SECRET}"

    @contextlib.contextmanager
    def running(self) -> Iterator["Webhook"]:
        thread = threading.Thread(target=self.server.serve_forever)
        thread.start()
        yield self
        self.server.shutdown()
        thread.join()
        self.server.server_close()


@pytest.fixture
def instance(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    clear_settings(monkeypatch)
    # No such folder: every run fails.
    monkeypatch.setenv("AUDIO_SOURCE_URI", (tmp_path / "absent").as_uri())
    shutil.copy(PROJECT / "dagster.yaml", tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


def notified(instance: dg.DagsterInstance, keys: list[str]) -> None:
    """Fail a run over some partitions and evaluate the sensor for it."""
    repository = defs().get_repository_def()
    instance.add_dynamic_partitions("folder_minute", keys)
    tags = {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}
    run = repository.get_job("process_audio").execute_in_process(
        instance=instance, tags=tags, raise_on_error=False
    )
    assert not run.success
    with dg.build_run_status_sensor_context(
        sensor_name="notify_of_failures",
        dagster_instance=instance,
        dagster_run=run.dagster_run,
        dagster_event=run.get_run_failure_event(),
        repository_def=repository,
    ).for_run_failure() as context:
        repository.get_sensor_def("notify_of_failures")(context)


def test_a_failed_run_is_told_by_job_partitions_and_the_first_sentence(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    with Webhook().running() as webhook:
        monkeypatch.setenv("FAILURE_WEBHOOK_URL", webhook.url)
        notified(instance, KEYS)
    [told] = webhook.bodies
    assert told["type"] == "application/json"
    text = told["text"]
    assert text.startswith(f"process_audio of {KEYS[0]} to {KEYS[1]} has failed: StorageError: ")
    assert "does not exist" in text
    assert "\n" not in text


def test_without_the_setting_there_is_no_sensor(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    def sensors() -> set[str]:
        return {sensor.name for sensor in defs().get_repository_def().sensor_defs}

    assert "notify_of_failures" not in sensors()
    monkeypatch.setenv("FAILURE_WEBHOOK_URL", "https://example.org/hook")
    assert "notify_of_failures" in sensors()


@pytest.mark.parametrize("code", [404, 500])
def test_a_webhook_that_refuses_is_an_error_without_its_address(code: int):
    with (
        Webhook(code).running() as webhook,
        pytest.raises(NotificationError, match=f"it answers {code}") as raised,
    ):
        post(webhook.url, "text")
    assert SECRET not in repr(raised.value)
    assert raised.value.__cause__ is None


def test_a_webhook_that_is_not_there_is_an_error_without_its_address():
    url = Webhook().url.replace("127.0.0.1", "127.0.0.2")
    with pytest.raises(NotificationError, match="cannot reach the webhook") as raised:
        post(url, "text")
    assert SECRET not in repr(raised.value)


@pytest.mark.parametrize("url", ["hooks.example.org/x", "file:///etc/passwd", "https://host/with blank"])
def test_what_is_no_address_is_refused_without_repeating_it(url: str):
    with pytest.raises(ArgumentError) as raised:
        FAILURE_WEBHOOK_URL.check(url)
    assert url not in str(raised.value)
