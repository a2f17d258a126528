"""The processes that work on one experiment together, one for each device of a machine.

Every process runs the same program; what only one may do, the first does. Started by `launch`, or by ``torchrun``.
"""

import contextlib
import dataclasses
import datetime
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist

from pushpull_conv.cores import usable_cores
from pushpull_conv.errors import InputError

Made = TypeVar("Made")

_PATIENCE = datetime.timedelta(days=7)
"""So long a process waits for another, which may have one cell of the benchmark more to count; a dead one ends all."""
_GRACE_SECONDS = 20
"""So long a process may take to end when it is asked to; one that waits for another on the GPU never does."""


@dataclasses.dataclass(frozen=True)
class Ranks:
    """This process's place among those that work together.

    Args:
        rank: Its number, from 0.
        count: How many there are.

    Example:
        >>> alone = Ranks()
        >>> alone.is_first, alone.share([1, 2, 3]), alone.by_first(lambda: "made")
        (True, [1, 2, 3], 'made')
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process does what only one may do."""
        return self.rank == 0

    def share(self, tasks: Sequence[Made]) -> list[Made]:
        """The tasks of this process; each task goes to exactly one, and shares differ in size by at most one."""
        return list(tasks[self.rank :: self.count])

    def by_first(self, make: Callable[[], Made]) -> Made:
        """Let the first process call ``make`` while the others wait; every process gets what it returned."""
        if self.count == 1:
            return make()
        made = [make() if self.is_first else None]
        dist.broadcast_object_list(made)
        return made[0]  # type: ignore[return-value]  # the first has made it

    def gather(self, value: Made) -> list[Made]:
        """The values of all processes, in the order of their ranks."""
        if self.count == 1:
            return [value]
        values: list[Made | None] = [None] * self.count
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]  # each rank has filled its place

    def wait(self) -> None:
        """Go on when every process has come here."""
        if self.count > 1:
            dist.barrier()


ALONE = Ranks()


@contextlib.contextmanager
def joined() -> Iterator[Ranks]:
    """Join the processes that were started together with this one, as ``RANK`` and ``WORLD_SIZE`` say, and leave them.

    Without these variables this process is alone. After an error it stays: the others fail at its leaving, and what
    they say then must not hide the error. Once that is told, `leave` ends it.

    What works over the processes, such as a `DistributedDataParallel`, should be gone by then: while it is there, so
    are torch's threads, and one that is still busy when Python ends aborts the process.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Ranks()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)
    yield Ranks(dist.get_rank(), count)
    dist.barrier()
    leave()


def leave() -> None:
    """Leave the processes that this one has `joined`."""
    if dist.is_initialized():
        dist.destroy_process_group()


def own_device() -> torch.device:
    """The device that this process works on: its GPU, or the processor where there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def launched() -> bool:
    """Whether this process was started together with others."""
    return "RANK" in os.environ


def launch(command: Sequence[str], devices: int) -> int:
    """Run ``command`` once for each of several devices of this machine, and wait.

    When one process fails, or this one is ended by SIGTERM, the others are stopped.

    Args:
        command: A program that enters `joined`.
        devices: GPUs where there are any, else processes that share the processor's cores.

    Returns:
        0, or the exit status of the first that failed.

    Raises:
        InputError: There are not so many devices.
    """
    require_devices(devices)
    processes: list[subprocess.Popen[bytes]] = []
    with _stopped_at_the_end(processes):
        processes.extend(subprocess.Popen(command, env=environment) for environment in _environments(devices))
        while (statuses := [process.poll() for process in processes]).count(0) < devices:
            if failed := next((status for status in statuses if status), None):
                return failed
            time.sleep(0.05)
        return 0


@contextlib.contextmanager
def _stopped_at_the_end(processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Leave none of the processes running, also where SIGTERM ends this one."""
    found = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + _GRACE_SECONDS
        for process in processes:
            try:
                process.wait(max(0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        signal.signal(signal.SIGTERM, found)


def require_devices(devices: int) -> None:
    """Raise `InputError` unless this machine has so many devices."""
    gpus, cores = torch.cuda.device_count(), usable_cores()
    present, kind = (gpus, "GPUs") if gpus else (cores, "processor cores (and no GPU)")
    if not 1 <= devices <= present:
        raise InputError(f"--devices {devices} is not from 1 to {present}: this machine has {present} {kind}")


def _environments(devices: int) -> list[Mapping[str, str]]:
    """The environment of each process: its rank, where they meet, and its share of the cores."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {**os.environ, "WORLD_SIZE": str(devices), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // devices)))
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(devices)]
