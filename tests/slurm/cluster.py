"""A SLURM of one node and two CPUs on the loopback addresses, for tests: munged, slurmctld and slurmd in a folder."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
CONFIG = """
ClusterName=test
MpiDefault=none
SlurmctldHost=localhost(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller_port}
SlurmdPort={node_port}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
# A requeued job waits until its old credential has expired: 120 s, were it not for cred_expire.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
# The strictest setting of a cluster: the launcher must override it.
KillOnBadExit=1
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerParameters=sched_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
NodeName=localhost NodeAddr=127.0.0.1 CPUs=2
PartitionName=main Nodes=ALL Default=YES PriorityTier=1 GraceTime=30
PartitionName=urgent Nodes=ALL PriorityTier=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
"""


def wait_for(what: str, condition: Callable[[], bool], timeout_s: float) -> None:
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, f"not within {timeout_s} s: {what}"
        time.sleep(0.2)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Cluster:
    """Commands of the running cluster; `job` is a number as sbatch prints it, or NUMBER_INDEX in an array."""

    def __init__(self, folder: Path):
        self.folder = folder
        # By default JAX's coordinator listens on all addresses.
        port = free_port()
        self.environment = os.environ | {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "JAX_PLATFORMS": "cpu",
            "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
            "JAX_COORDINATOR_PORT": str(port),
            "JAX_COORDINATOR_BIND_ADDRESS": f"127.0.0.1:{port}",
        }

    def output(self, *command: str | Path) -> str:
        """What the command prints, whether or not it fails."""
        return subprocess.run(command, env=self.environment, cwd=self.folder, capture_output=True, text=True).stdout

    def run(self, *command: str | Path) -> str:
        done = subprocess.run(command, env=self.environment, cwd=self.folder, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def start(self, *command: str | Path) -> subprocess.Popen:
        with (self.folder / "daemons.log").open("a") as log:
            return subprocess.Popen(command, env=self.environment, cwd=self.folder, stdout=log, stderr=log)

    def show(self, job: str) -> dict[str, str]:
        """scontrol's fields: JobState, ExitCode, Restarts, ..."""
        return dict(re.findall(r"(\w+)=(\S*)", self.run("scontrol", "show", "job", "--oneliner", job)))

    def wait_for_state(self, job: str, *states: str, timeout_s: float = 60) -> None:
        wait_for(f"job {job} {states}", lambda: self.show(job)["JobState"] in states, timeout_s)


def end(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()


@contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """The daemons, and processes that jobs left, end with the context."""
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    assert not missing, f"{', '.join(missing)} not found; on Debian: apt-get install slurm-wlm"
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "slurm.conf").write_text(
        CONFIG.format(folder=folder, user=getpass.getuser(), controller_port=free_port(), node_port=free_port())
    )
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(1024))

    cluster = Cluster(folder)
    files = {"socket": "munge.socket", "key-file": "munge.key", "pid-file": "munge.pid", "log-file": "munge.log"}
    paths = [f"--{option}={folder / name}" for option, name in (files | {"seed-file": "munge.seed"}).items()]
    with ExitStack() as stack:

        def daemon(*command: str) -> None:
            # Killed tests do not clean up; at least the daemons end with them.
            stack.callback(end, cluster.start("setpriv", "--pdeathsig", "TERM", *command))

        # --force: though only this user can enter the folder.
        daemon("munged", "--foreground", "--force", *paths)
        wait_for("munged", (folder / "munge.socket").exists, 10)
        daemon("slurmctld", "-D")
        daemon("slurmd", "-D", "-N", "localhost")
        wait_for("an idle node", lambda: "idle" in cluster.output("sinfo", "--noheader", "--format=%T"), 30)
        stack.callback(wait_for, "no jobs", lambda: not cluster.output("squeue", "--noheader"), 30)
        stack.callback(cluster.output, "scancel", "--user", getpass.getuser(), "--full", "--signal=KILL")
        yield cluster
