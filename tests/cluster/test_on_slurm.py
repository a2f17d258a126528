"""SLURM itself: a cluster of one node, started here, on which the quickstart is submitted, killed and finished.

Needs root and Debian's packages slurm-wlm and munge.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pushpull_conv import CORRUPTIONS, Results

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")
MISSING = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} not installed (Debian: slurm-wlm, munge)"),
    pytest.mark.skipif(os.geteuid() != 0, reason="starting SLURM's daemons needs root"),
]

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerParameters=batch_sched_delay=1,sched_interval=2,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def wait_until(true, seconds, what):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.2)


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A cluster of this machine alone, whose commands find it by SLURM_CONF."""
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir(mode=0o755)
    key = folder / "munge" / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    configuration = folder / "slurm.conf"
    host = socket.gethostname().partition(".")[0]
    configuration.write_text(CONFIGURATION.format(host=host, ports=free_ports(2), folder=folder, cores=os.cpu_count()))
    munge = [f"--{name}-file={folder}/munge/{name}" for name in ("key", "pid", "log", "seed")]
    commands = [
        ["munged", "--foreground", "--force", "--num-threads=1", f"--socket={folder}/munge/socket", *munge],
        ["slurmctld", "-D", "-c", "-f", configuration],
        ["slurmd", "-D", "-c", "-f", configuration],
    ]
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "SLURM_CONF": str(configuration)}
    with contextlib.ExitStack() as stack:
        for command in commands:
            log = stack.enter_context((folder / f"{command[0]}.log").open("w"))
            daemon = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
            stack.callback(daemon.wait)
            stack.callback(daemon.terminate)
            if command[0] == "munged":
                wait_until((folder / "munge" / "socket").exists, 20, "munged")

        def node_state():
            call = ["sinfo", "--noheader", "--format=%T"]
            return subprocess.run(call, env=environment, capture_output=True, text=True, check=False).stdout.strip()

        wait_until(lambda: node_state() == "idle", 60, "the node")
        yield environment
        subprocess.run(["scancel", "--user=root"], env=environment, check=True)
        wait_until(lambda: node_state() == "idle", 60, "the last tasks to end")


class Submission:
    """The quickstart, shortened, in a folder of its own."""

    def __init__(self, environment, folder):
        self.environment = {**environment, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        self.folder = folder
        self.run = folder / "quick start"

    def pushpull(self, *words):
        call = [sys.executable, "-m", "pushpull_conv.cli", *map(str, words)]
        return subprocess.run(call, env=self.environment, cwd=self.folder, capture_output=True, text=True, check=False)

    def submit(self, *words):
        settings = ["--set", "variants=[baseline]", "--set", "training.epochs=3", "--cpus", "1"]
        return self.pushpull("submit", "quickstart", "--out", self.run, *settings, *words)

    def status(self):
        shown = self.pushpull("status", self.run)
        assert shown.returncode == 0, shown.stderr
        return shown.stdout

    def process(self, verb):
        """The process of a task of this run that does ``verb``, or None."""
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = file.read_bytes().split(b"\0")
                if verb.encode() in words and os.fsencode(self.run) in words:
                    return int(file.parent.name)
        return None

    def kill(self, verb):
        wait_until(lambda: self.process(verb), 120, f"a task that does {verb}")
        os.kill(self.process(verb), signal.SIGKILL)

    def attempts(self):
        logs = sorted((self.run / "cluster" / "logs").iterdir())
        return {log.stem: log.read_text().count("== attempt") for log in logs}


def test_a_submitted_run_survives_kills_and_finishes(cluster, tmp_path):
    work = Submission(cluster, tmp_path)
    first = work.submit()
    assert first.returncode == 0, first.stderr
    again = work.submit()
    assert again.returncode == 0, again.stderr
    assert "17 in the queue before, 0 done" in again.stdout
    assert "submitted" not in again.stdout

    wait_until((work.run / "baseline" / "last.ckpt").exists, 120, "the first epoch")
    work.kill("train")
    wait_until((work.run / "baseline" / "model.safetensors").exists, 180, "the training")
    work.kill("benchmark")
    page = work.run / "report" / "index.html"
    wait_until(page.exists, 400, "the report")

    assert len(Results.load(work.run / "baseline" / "results.json").cells) == 5 * len(CORRUPTIONS)
    attempts = work.attempts()
    assert len(attempts) == 17
    assert attempts.pop("train-0") == 2
    assert sorted(attempts.values()) == [1] * 15 + [2]
    epochs = [
        line for line in (work.run / "cluster" / "logs" / "train-0.log").read_text().splitlines() if "epoch" in line
    ]
    assert [line.split("/")[0][-1] for line in epochs] == ["1", "2", "3"]  # none was trained twice
    assert "17 tasks: 17 done; report: done" in work.status()
    done = work.submit()
    assert "0 in the queue before, 17 done" in done.stdout


def test_a_task_that_was_cancelled_is_told_and_alone_submitted_again(cluster, tmp_path):
    work = Submission(cluster, tmp_path)
    job = work.submit("--sbatch=--begin=now+1hour").stdout
    assert "train: 1 submitted as job" in job
    number = job.split("as job ")[1].split()[0]
    subprocess.run(["scancel", number], env=cluster, check=True)
    wait_until(lambda: "not submitted" in work.status(), 60, "the cancelled tasks to leave the queue")
    again = work.submit("--sbatch=--begin=now+1hour")
    assert "train: 1 submitted as job" in again.stdout


def test_a_partition_that_does_not_exist_is_refused_in_the_words_of_slurm(cluster, tmp_path):
    refused = Submission(cluster, tmp_path).submit("--partition", "nowhere")
    assert refused.returncode == 2
    assert len(refused.stderr.strip().splitlines()) == 1
    assert "invalid partition specified: nowhere" in refused.stderr
