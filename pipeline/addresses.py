"""Whether a Ray cluster can be reached from here, found out without Ray.

In:    `engine.ray.address`: `auto`, `host:port`, `ray://host:port`.
Out:   one sentence that says why not and what to do, or nothing.
Rerun: looks again; nothing is kept.

Who speaks to a cluster itself must be one of its machines: Ray's own processes stand between. Ray's
client speaks from anywhere to the head, which works for it. Ray finds out either by trying, for
minutes.
"""

import os
import socket

import psutil

CLIENT = "ray://"
ANSWER_SECONDS = 5.0
NODE_PROCESS = "raylet"  # what every machine of a cluster runs


def unreachable(address: str) -> str:
    """Why no cluster can be reached at an address, from this machine; empty where one may be."""
    wanted = address
    if address == "auto":
        wanted = os.environ.get("RAY_ADDRESS") or address  # as Ray itself does
    if wanted != "auto" and (why := _refused(wanted)):
        return _said(address, wanted, f"nobody answers there ({why}): {_start(wanted)}")
    if wanted.startswith(CLIENT) or _is_node():
        return ""
    if wanted == "auto":
        return _said(
            address,
            wanted,
            "no Ray node runs on this machine: ray start --head, or ray start --address=HEAD:6379, "
            "or from outside of the cluster ray://HEAD:10001 (infra/README.md)",
        )
    host = wanted.rpartition(":")[0]
    return _said(
        address,
        wanted,
        "this machine is none of that cluster, no Ray node runs here: "
        f"ray start --address={wanted}, or take Ray's client, ray://{host}:10001",
    )


def _said(address: str, wanted: str, why: str) -> str:
    place = f"{address!r}" if address == wanted else f"{address!r}, by RAY_ADDRESS {wanted!r}"
    return f"engine.ray.address: {place}: {why}"


def _start(address: str) -> str:
    if address.startswith(CLIENT):
        return "ray start --head serves clients on port 10001 (--ray-client-server-port)"
    return "ray start --head on that machine, or another address (infra/README.md)"


def _refused(address: str) -> str:
    host, _, port = address.removeprefix(CLIENT).rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def _is_node() -> bool:
    return any(each.info["name"] == NODE_PROCESS for each in psutil.process_iter(["name"]))
