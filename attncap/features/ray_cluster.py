"""Connecting to a Ray cluster, or starting one on this machine."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

REACH_SECONDS = 10.0  # for a connection to a cluster
LOCAL_STARTS = 3  # Ray gives its processes 30 seconds, which on a busy machine is not always enough
LOCAL_OBJECTS = 300 * 2**20  # shared memory of a local Ray, bytes: a batch at `mixed8` takes 5 MB


def last_line(error: BaseException) -> str:
    """Return the last line of an error's message: Ray puts a traceback of the worker before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def import_ray() -> Any:
    """Return the module ray, or raise ValueError that says how to install it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage statistics are sent
    try:
        import ray
    except ImportError:
        raise ValueError("the engine ray needs the package ray: pip install 'attncap[ray]'") from None
    return ray


def _last_cluster() -> str:
    with suppress(Exception):  # not a public name of Ray: without it, a cluster that has ended is noticed late
        from ray._private.utils import read_ray_address

        return read_ray_address() or ""
    return ""


def _reach(address: str) -> None:
    # Ray itself waits for minutes, and then ends the process.
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or _last_cluster()
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon:
        if not port.isdecimal():
            raise ValueError("local, auto, HOST:PORT or ray://HOST:PORT expected")
        socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()


@contextmanager
def connected(ray: Any, address: str, cores: int) -> Iterator[None]:
    """Connect to the Ray at an address (see `RayEngine`), or start one here; an existing connection stays.

    Raises:
        OSError: no Ray there.
    """
    if ray.is_initialized():
        yield
        return
    local = {
        "num_cpus": max(os.cpu_count() or 1, cores),
        "object_store_memory": LOCAL_OBJECTS,
        "include_dashboard": False,
    }
    tries = LOCAL_STARTS if address == "local" else 1
    while not ray.is_initialized():
        try:
            _reach(address)
            ray.init(address, log_to_driver=False, logging_level="ERROR", **(local if address == "local" else {}))
        except Exception as error:  # Ray raises various errors, with one remedy
            ray.shutdown()
            tries -= 1
            if not tries:
                there = (
                    "start one there with `ray start --head`; one that asks for a token wants RAY_AUTH_MODE=token here"
                )
                mend = "is there memory left?" if address == "local" else there
                raise OSError(f"no Ray at {address} ({last_line(error)}): {mend}") from None
    try:
        yield
    finally:
        ray.shutdown()
