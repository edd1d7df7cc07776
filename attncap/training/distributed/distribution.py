"""Training shared by processes, machines or devices: each reads its part of a batch, and the loss is that of the whole.

On the JAX backend processes share a training (`keras.distribution.DataParallel`): the batch is one array over all their
devices, so that the loss is the whole batch's mean over real tokens and the random masks are the whole batch's. On
TensorFlow the devices of one machine share it (`MirroredStrategy`). The captioner that is validated and saved lives on
one device and gets the replicas' weights after every epoch.
"""

from __future__ import annotations

import os
import re

import keras

from attncap.training.distributed.base import SharedTraining
from attncap.training.distributed.mirrored import MirroredTraining
from attncap.training.distributed.processes import CLUSTERS, ProcessTraining


def shared_training(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> SharedTraining:
    """Join the processes that train together, or use the devices of this machine; call it before anything is computed.

    Args:
        coordinator: HOST:PORT of process 0; default: the first address of KERAS_DISTRIBUTION_JOB_ADDRESSES.
        processes: how many; default: KERAS_DISTRIBUTION_NUM_PROCESSES.
        process: the number of this process, from 0; default: KERAS_DISTRIBUTION_PROCESS_ID. If none of the three is
            given, the variables of Slurm and Open MPI are read; without these, the devices of this machine are used.

    Returns:
        training: `ProcessTraining` on JAX, `MirroredTraining` on TensorFlow.

    Raises:
        ValueError: another backend, processes on TensorFlow, or not all three.

    Example:
        >>> with shared_training("10.0.0.1:1234", 2, 0) as distribution:
        ...     train(data, "runs/mine", distribution=distribution)
    """
    given = {"coordinator": coordinator, "processes": processes, "process-id": process}
    backend = keras.backend.backend()
    if backend == "tensorflow":
        extra = [name for name, value in given.items() if value is not None]
        if extra:
            raise ValueError(
                f"--{extra[0]}: on the TensorFlow backend the devices of one machine share a training; for several "
                "processes set KERAS_BACKEND=jax in the environment"
            )
        return MirroredTraining()
    if backend != "jax":
        raise ValueError(f"the {backend} backend trains in one process: set KERAS_BACKEND=jax (or tensorflow)")
    addresses = coordinator or os.environ.get("KERAS_DISTRIBUTION_JOB_ADDRESSES")
    given["coordinator"] = addresses.split(",")[0] if addresses else None
    for name, variable in (("processes", "NUM_PROCESSES"), ("process-id", "PROCESS_ID")):
        text = os.environ.get(f"KERAS_DISTRIBUTION_{variable}")
        if given[name] is None and text:
            if not text.isdigit():
                raise ValueError(f"KERAS_DISTRIBUTION_{variable} is {text!r}: a number expected")
            given[name] = int(text)
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if len(missing) == 3:
        return ProcessTraining(None, None if any(name in os.environ for name in CLUSTERS) else 1, None)
    if missing:
        raise ValueError(f"{', '.join(missing)} missing: every process needs --coordinator, --processes, --process-id")
    host, processes, process = str(given["coordinator"]), int(str(given["processes"])), int(str(given["process-id"]))
    if not re.fullmatch(r".+:\d+", host):
        raise ValueError(f"--coordinator {host}: HOST:PORT of process 0 expected, as 10.0.0.1:1234")
    if not 0 <= process < processes:
        raise ValueError(f"--process-id {process}: 0 to {processes - 1} expected, as there are {processes} processes")
    return ProcessTraining(host, processes, process)
