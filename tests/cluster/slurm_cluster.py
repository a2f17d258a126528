"""A SLURM of one node on this machine, from Debian's packages slurm-wlm and munge, for as long as a test needs it."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")
CPUS = 2


def missing():
    """Why there can be no cluster here, or ""."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"{absent[0]} is not installed (Debian: slurm-wlm, munge)"
    return "" if os.geteuid() == 0 else "slurmd must run as root"


CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
# A task that was queued again may begin when the credential of its last attempt has expired.
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2
SlurmdParameters=config_overrides
KillWait=2
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@contextlib.contextmanager
def cluster(folder: Path):
    """Start the daemons in a folder and give the path of the configuration, for ``SLURM_CONF``."""
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir(parents=True)
    for above in (folder, *folder.parents):  # munged wants to know that nobody else can put its socket away
        if above.stat().st_uid == os.geteuid() and above.stat().st_mode & 0o022 and not above.stat().st_mode & 0o1000:
            above.chmod(above.stat().st_mode & ~0o022)
    key = folder / "munge" / "key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    configuration = folder / "slurm.conf"
    host, ports = socket.gethostname().partition(".")[0], _free_ports(2)
    configuration.write_text(CONFIGURATION.format(host=host, ports=ports, folder=folder, cpus=CPUS))
    files = {"--socket": "socket", "--pid-file": "pid", "--log-file": "log", "--seed-file": "seed"}
    places = [f"{option}={folder}/munge/{name}" for option, name in files.items()]
    try:
        _start("munged", f"--key-file={key}", "--num-threads=1", "--force", *places)
        _start("slurmctld", "-c", "-f", configuration)
        _start("slurmd", "-c", "-f", configuration)
        _wait_for_node(configuration)
        yield configuration
    finally:
        if _said(["squeue", "--noheader"], configuration):
            _said(["scancel", "--signal=KILL", "--full", "--user=root"], configuration)
            _said(["scancel", "--user=root"], configuration)
            time.sleep(3)
        for name in ("slurmd.pid", "slurmctld.pid", "munge/pid"):
            _stop(folder / name)


def _start(*words):
    subprocess.run([*map(str, words)], check=True, capture_output=True, timeout=30)


def _said(words, configuration):
    environment = {**os.environ, "SLURM_CONF": str(configuration)}
    return subprocess.run(words, capture_output=True, text=True, env=environment, timeout=30).stdout


def _wait_for_node(configuration):
    for _ in range(60):
        if _said(["sinfo", "--noheader", "--format=%T"], configuration).strip() == "idle":
            return
        time.sleep(0.5)
    logs = "\n".join(file.read_text() for file in configuration.parent.glob("*.log"))
    raise RuntimeError(f"the node did not become idle:\n{logs}")


def _free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _stop(file):
    """End the daemon that wrote this file."""
    if not file.exists():
        return
    number = int(file.read_text())
    with contextlib.suppress(ProcessLookupError):
        os.kill(number, signal.SIGTERM)
        for _ in range(100):
            os.kill(number, 0)
            time.sleep(0.1)
        os.kill(number, signal.SIGKILL)
