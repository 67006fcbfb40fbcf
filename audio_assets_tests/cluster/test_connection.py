"""Who gets into a cluster, what is said where nobody does, and that without RAY_ADDRESS there is no Ray."""

import logging
import os
import pathlib
import socket
import subprocess
import sys

import pytest

from audio_assets.cluster import local_cluster
from audio_assets.cluster.connection import connected, prepare
from audio_assets.defs.passes import pass_of_run, rebuilt
from audio_assets.defs.resources import AudioTokeniser, Bucket
from audio_assets.errors import ArgumentError, ClusterError
from audio_assets.settings import RAY_ADDRESS, RAY_GPUS_PER_ACTOR, RAY_MAX_ACTORS
from audio_assets_tests.cluster.conftest import Backfill
from audio_assets_tests.support.ray_cluster import TOKEN, RayCluster
from audio_assets_tests.support.stand_in import StandInWhisper

pytestmark = pytest.mark.xdist_group("ray")

LOG = logging.getLogger(__name__)

STRANGER = """
import pathlib, sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)
made = ray.remote(lambda path: pathlib.Path(path).write_text("here"))
ray.get(made.options(num_cpus=0).remote(sys.argv[2]))
"""

RUN = """
import logging, sys
from audio_assets.cluster.connection import connected
from audio_assets.errors import ClusterError
try:
    with connected(sys.argv[1], logging.getLogger(), 20):
        print("connected")
except ClusterError as e:
    print(e)
"""

EMBEDDED = """
import sys
import dagster as dg
from audio_assets.definitions import defs
from audio_assets_tests.support.stand_in import StandInWhisper, definitions
repository = definitions(StandInWhisper()).get_repository_def()
with dg.DagsterInstance.ephemeral() as instance:
    instance.add_dynamic_partitions("folder_minute", ["p0@2023-08-24-00:21"])
    made = repository.get_job("process_audio").execute_in_process(
        instance=instance, partition_key="p0@2023-08-24-00:21",
        asset_selection=[dg.AssetKey(name) for name in ("s3_inventory", "transcripts", "tokens")],
    )
print(made.success, sorted(name for name in sys.modules if name.partition(".")[0] == "ray"
      or name in ("audio_assets.cluster.actor", "audio_assets.cluster.driver")))
"""


def start(program: str, *arguments: str, token: str | None, home: pathlib.Path) -> "subprocess.Popen[str]":
    environment = {name: text for name, text in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"HOME": str(home)}
    if token is not None:
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def test_a_stranger_without_the_token_starts_nothing(ray_cluster: RayCluster, tmp_path: pathlib.Path) -> None:
    mark = tmp_path / "mark"
    strangers = [
        start(STRANGER, ray_cluster.address, str(mark), token=token, home=tmp_path)
        for token in (None, TOKEN.replace("a", "b"))
    ]
    friend = start(STRANGER, ray_cluster.address, f"{mark}-friend", token=TOKEN, home=tmp_path)
    said, _ = friend.communicate(timeout=120)
    # The same program with the token, or the test would show nothing.
    assert friend.returncode == 0, said
    assert mark.with_name("mark-friend").exists()
    for stranger in strangers:
        stranger.communicate(timeout=120)
        assert stranger.returncode != 0
    assert not mark.exists()


def test_a_run_with_a_wrong_token_is_told_so_in_words(
    ray_cluster: RayCluster, tmp_path: pathlib.Path
) -> None:
    run = start(RUN, ray_cluster.address, token="another-token-than-that-of-the-cluster", home=tmp_path)
    said, _ = run.communicate(timeout=180)
    assert "does not let this run in" in said
    assert "RAY_AUTH_TOKEN" in said


@pytest.mark.parametrize("address", ["auto", "10.0.0.1:6379"])
@pytest.mark.usefixtures("ray_cluster")
def test_an_address_without_a_token_is_refused_before_anything_is_sent(
    address: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ClusterError, match="RAY_AUTH_TOKEN"):
        prepare(address)
    assert "RAY_AUTH_MODE" not in os.environ


@pytest.mark.usefixtures("ray_cluster")
def test_the_cluster_of_one_machine_has_a_token_that_others_cannot_read(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")
    prepare("local")
    assert os.environ["RAY_AUTH_MODE"] == "token"
    token = tmp_path / ".ray" / "auth_token"
    assert len(token.read_text()) >= 32
    assert token.stat().st_mode & 0o077 == 0


@pytest.mark.usefixtures("ray_cluster")
def test_a_token_turns_authentication_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    monkeypatch.setenv("RAY_AUTH_MODE", "")
    prepare("10.0.0.1:6379")
    assert os.environ["RAY_AUTH_MODE"] == "token"


@pytest.mark.parametrize(
    ("address", "is_node"),
    [
        ("127.0.0.9:6379", True),
        ("127.0.0.1:6379", True),
        ("localhost:6379", True),
        ("127.0.0.1:6380", False),
        ("203.0.113.5:6379", False),
        ("no-such-host.invalid:6379", False),
    ],
)
def test_a_node_is_found_by_any_address_of_its_head(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, address: str, is_node: bool
) -> None:
    """`ray start --head` turns 127.0.0.1 into another address of the machine."""
    for pid, words in enumerate(
        [["python", "-m", "raylet"], ["/ray/raylet", "--gcs-address=127.0.0.9:6379"]]
    ):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cmdline").write_bytes("\0".join(words).encode())
    monkeypatch.setattr(local_cluster, "_PROC", tmp_path)
    assert local_cluster._has_node_of(address) is is_node


def test_a_free_port_is_none_that_the_system_gives_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", port := local_cluster.free_port("127.0.0.1")))
        other.listen()
        monkeypatch.setattr(local_cluster, "_PORTS", range(port, port + 1))
        with pytest.raises(ClusterError, match=f"all ports from {port} to {port} are in use on 127.0.0.1"):
            local_cluster.free_port("127.0.0.1")
    # Where the ports begin that Linux gives by default (ip_local_port_range).
    assert 20_000 <= port < 32_768


def test_a_cluster_that_does_not_answer_is_named(
    monkeypatch: pytest.MonkeyPatch, ray_cluster: RayCluster
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setattr("audio_assets.cluster.connection._SECONDS_BETWEEN_TRIES", 0.01)
    with (
        pytest.raises(ClusterError, match=r"no Ray cluster answers at 127.0.0.2:1 \(RAY_ADDRESS\)"),
        connected("127.0.0.2:1", LOG, 0.1),
    ):
        pass


def test_without_an_address_ray_is_never_imported(made_backfill: Backfill, tmp_path: pathlib.Path) -> None:
    run = start(EMBEDDED, token=None, home=tmp_path)
    said, _ = run.communicate(timeout=180)
    assert said.splitlines()[-1] == "True []"


def test_credentials_of_a_resource_do_not_travel_to_actors() -> None:
    from dagster_aws.s3 import S3Resource

    bucket = Bucket(
        source_uri="file:///a",
        table_uri="file:///b",
        s3=S3Resource(aws_access_key_id="id", aws_secret_access_key="planted-secret"),
    )
    with pytest.raises(ArgumentError, match="credentials do not travel") as raised:
        rebuilt(bucket)
    assert "planted-secret" not in str(raised.value)


def test_a_resource_is_made_again_in_another_process_with_the_same_values() -> None:
    from dagster_aws.s3 import S3Resource

    made = rebuilt(StandInWhisper(seconds=0.5, language="en"))()
    assert (type(made), made.seconds, made.language) == (StandInWhisper, 0.5, "en")
    bucket = rebuilt(Bucket(source_uri="file:///a", table_uri="file:///b", s3=S3Resource()))()
    assert bucket.transcripts.uri == "file:///b/transcripts"


@pytest.mark.parametrize("text", ["ray://head:10001", "head", "http://head:6379", "token@head:6379"])
def test_an_address_that_is_none_is_refused_in_words(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RAY_ADDRESS.name, text)
    bucket = Bucket.model_construct(source_uri="file:///a", table_uri="file:///b")
    with pytest.raises(ArgumentError, match="RAY_ADDRESS is local, auto or host:port"):
        pass_of_run(bucket, StandInWhisper(), AudioTokeniser(), ["tokens"], LOG, recompute=False)


def test_how_much_an_actor_takes_is_checked() -> None:
    assert [RAY_GPUS_PER_ACTOR.check(text) for text in ("0", "0.25", "1", "2")] == [0, 0.25, 1, 2]
    assert [RAY_MAX_ACTORS.check(text) for text in ("auto", "16")] == [None, 16]
    for text in ("1.5", "-1", "nan", "many"):
        with pytest.raises(ArgumentError, match="RAY_GPUS_PER_ACTOR is 0, a part of 1 or a whole number"):
            RAY_GPUS_PER_ACTOR.check(text)
