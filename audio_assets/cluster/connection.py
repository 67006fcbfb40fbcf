"""The connection of this process to a Ray cluster.

Ray has its own rules for addresses, tokens and signals. They are met here, so that what is wrong is said in
words and Dagster still ends a run.
"""

import contextlib
import importlib.util
import logging
import os
import pathlib
import signal
import socket
import threading
import time
from collections.abc import Iterator

from audio_assets.cluster.local_cluster import default_token, joined, local_address, make_token
from audio_assets.errors import ClusterError

NAMESPACE = "audio_assets"
AUTO = "auto"
LOCAL = "local"
SECONDS_TO_CONNECT = 300.0
"""How long a cluster may be away, as when its head is started anew."""
_SECONDS_BETWEEN_TRIES = 2.0
_SECONDS_BETWEEN_WORDS = 15.0
_INSTALL = "RAY_ADDRESS is set, but Ray is not installed: pip install 'audio-assets[ray]'"
_NO_TOKEN = (
    "RAY_ADDRESS is set, but there is no token for the cluster: whoever reaches Ray's ports runs code on its"
    " nodes. Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) to the same on all nodes and"
    " here; `ray get-auth-token --generate` makes one"
)


@contextlib.contextmanager
def connected(
    address: str, log: logging.Logger, seconds: float = SECONDS_TO_CONNECT, *, again: bool = False
) -> Iterator[str]:
    """Connect this process to a cluster, and disconnect it at the end.

    Args:
        address: `local` for the cluster of this machine, which is started if there is none; `auto` for one
            that runs there; or `host:port` of a head.
        seconds: how long to wait for a cluster that does not answer.
        again: wait as well for one that refuses: it has let this process in before.

    Yields:
        The URL of Ray's dashboard; empty where there is none.

    Raises:
        ClusterError: there is no cluster, or it does not let this process in.
    """
    prepare(address)
    import ray

    with contextlib.ExitStack() as stack:
        url = _connect(address, log, seconds, stack, again=again)
        try:
            yield f"http://{url}" if url else ""
        finally:
            ray.shutdown()


def prepare(address: str) -> None:
    """See that Ray is installed and token authentication is on; before Ray is imported, which reads it then.

    Raises:
        ClusterError: it is not, and nothing says that this is meant.
    """
    if importlib.util.find_spec("ray") is None:
        raise ClusterError(_INSTALL)
    mode = os.environ.get("RAY_AUTH_MODE", "").lower()
    if mode == "disabled":
        return
    if not _has_token():
        if address != LOCAL:
            raise ClusterError(_NO_TOKEN)
        make_token()
    # Ray turns it on by itself only for a cluster that this process starts.
    os.environ["RAY_AUTH_MODE"] = "token"


def _has_token() -> bool:
    if os.environ.get("RAY_AUTH_TOKEN"):
        return True
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or default_token()
    return pathlib.Path(path).is_file()


def _connect(
    address: str, log: logging.Logger, seconds: float, stack: contextlib.ExitStack, *, again: bool
) -> str | None:
    import ray
    from ray.exceptions import RayError

    started = time.monotonic()
    told = started
    while True:
        try:
            with _own_signals():
                head = _head(address, log)
                if head != AUTO:
                    stack.enter_context(joined(head, log))
                context = ray.init(
                    address=head, namespace=NAMESPACE, log_to_driver=False, configure_logging=False
                )
            return context.dashboard_url
        except (_NotYet, ConnectionError, RuntimeError, ValueError, RayError) as e:
            # Ray's own words where it cannot be reached do not tell a wrong token from a dead cluster.
            words = str(e) if isinstance(e, _NotYet) else _refused(address, e)
            waited = time.monotonic() - started
            if waited > seconds or not (again or isinstance(e, _NotYet)):
                raise ClusterError(f"{words}; waited {waited:.0f} s") from None
            stack.close()
            if time.monotonic() - told > _SECONDS_BETWEEN_WORDS:
                told = time.monotonic()
                log.warning(f"{words}; trying again for {seconds - waited:.0f} s")
            time.sleep(_SECONDS_BETWEEN_TRIES)


class _NotYet(Exception):
    """No cluster answers at the address."""


def _head(address: str, log: logging.Logger) -> str:
    """The `host:port` to connect to, or `auto`.

    Raises:
        _NotYet: nothing listens there.
    """
    if address == LOCAL:
        return local_address(log)
    if address == AUTO:
        # As a variable it would lead Ray to itself.
        os.environ.pop("RAY_ADDRESS", None)
        return AUTO
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as e:
        raise _NotYet(f"no Ray cluster answers at {address} (RAY_ADDRESS): {e}") from None
    return address


def _refused(address: str, error: Exception) -> str:
    said = " ".join(str(error).split())[:300]
    return (
        f"the Ray cluster at {address} (RAY_ADDRESS) does not let this run in: {said}. If it runs, its token"
        " differs: RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH must say the same here as on the cluster's nodes; if"
        " it does not, start it by `ray start --head`, or set RAY_ADDRESS=local"
    )


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the handlers of this process, on which Dagster's termination rests: `ray.init` sets its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            if handler is not None:
                signal.signal(number, handler)
