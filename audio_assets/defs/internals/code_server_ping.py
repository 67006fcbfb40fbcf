"""Whether the code server answers.

Why private: `dagster code-server start` is a proxy that starts the server behind it. If that one dies, the
proxy lives on and passes errors along; Dagster starts no other one. Only a request that goes through to the
server tells, and the names of its requests are private. `Ping` is asked for without Dagster's own client,
whose import takes a second and 100 MB.
"""

import pathlib

import grpc

PING = "/api.DagsterApi/Ping"


def answers(socket: pathlib.Path, seconds: float) -> bool:
    """Whether a code server, the one behind a proxy, answers.

    Args:
        socket: where it listens.
        seconds: how long to wait for its answer.
    """
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        try:
            channel.unary_unary(PING)(b"", timeout=seconds)
        except grpc.RpcError:
            return False
    return True
