"""Run a command on all workers of a Cloud TPU, and start it again when the TPU is preempted.

    python launch/tpu.py run NAME --zone ZONE --type v6e-16 --runtime v2-alpha-tpuv6e [--spot] [--ref REF] -- COMMAND...
    python launch/tpu.py logs NAME --zone ZONE [--worker N]
    python launch/tpu.py stop NAME --zone ZONE
    python launch/tpu.py delete NAME --zone ZONE

`run` requests the TPU as a queued resource, waits for it, copies this repository at a commit (without uncommitted
changes), installs it, and starts the command on every worker, in the repository. Then it watches the command: leave it
running, on a machine that stays on. If it is interrupted, the TPU keeps working, and the same `run` watches it again.
The command's exit codes decide what comes next:

    0      done: the TPU is deleted
    75     it was stopped and has saved: started again
    2      bad input, or a full disk: this ends with 2
    other  a crash: started again, at most 3 times on the same machines

A preempted TPU is deleted and requested again, so everything that the command writes must be on another machine's disk:
`launch/tpu_worker.sh mount` mounts one.
`logs` follows a worker's log. `stop` sends SIGTERM; end `run` first, or it starts the command again.
`delete` deletes the TPU, even while something runs on it.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
import tempfile
import time
from pathlib import Path

from command import Parser, Shell, split_command

BAD_INPUT, START_AGAIN = 2, 75  # exit codes
MAX_CRASHES = 3
POLL_S = 60
REPOSITORY = Path(__file__).resolve().parent.parent
WORKER = "hafm_jax/launch/tpu_worker.sh"  # on the workers, from the home directory


class Tpu:
    """One TPU, a queued resource and its node of the same name, by gcloud commands."""

    def __init__(self, args: argparse.Namespace):
        self._args = args
        self._shell = Shell(args.dry_run)

    def _gcloud(self, group: str, verb: str, *arguments: str) -> list[str]:
        return ["gcloud", "compute", "tpus", group, verb, *arguments, f"--zone={self._args.zone}", "--quiet"]

    def _run(self, *command: str) -> bool:
        return self._shell.run(*command) == 0

    def _ssh(self, command: str, worker: str = "all") -> list[str]:
        return self._gcloud("tpu-vm", "ssh", self._args.name, f"--worker={worker}", f"--command={command}")

    def create(self) -> bool:
        options = [
            f"--node-id={self._args.name}",
            f"--accelerator-type={self._args.type}",
            f"--runtime-version={self._args.runtime}",
            *(["--spot"] if self._args.spot else []),
        ]
        return self._run(*self._gcloud("queued-resources", "create", self._args.name, *options))

    def delete(self) -> bool:
        # --force: the node too.
        return self._run(*self._gcloud("queued-resources", "delete", self._args.name, "--force"))

    def state(self) -> str:
        """NONE, the queued resource's state while it has no node, then the node's: READY, PREEMPTED, ..."""
        # A listing distinguishes "there is none" from "cannot ask"; describe fails in both cases.
        listed = self._shell.output(*self._gcloud("queued-resources", "list", "--format=value(name,state.state)"))
        if listed is None:
            return "UNKNOWN"
        states = dict(re.findall(r"(?:.*/)?(\S+)\s+(\S+)", listed))
        state = states.get(self._args.name, "NONE")
        if state != "ACTIVE":
            return state
        node = self._shell.output(*self._gcloud("tpu-vm", "describe", self._args.name, "--format=value(state)"))
        return (node or "UNKNOWN").strip()

    def install(self) -> bool:
        archive = Path(tempfile.gettempdir()) / f"hafm_jax-{self._args.ref}.tar.gz"
        unpack = f"mkdir -p hafm_jax && tar -xzf {archive.name} -C hafm_jax"
        return (
            self._run("git", "-C", str(REPOSITORY), "archive", f"--output={archive}", self._args.ref)
            and self._run(*self._gcloud("tpu-vm", "scp", str(archive), f"{self._args.name}:", "--worker=all"))
            and self._run(*self._ssh(f"{unpack} && {WORKER} setup"))
        )

    def start(self, command: list[str]) -> bool:
        return self._run(*self._ssh(f"{WORKER} start {shlex.join(command)}"))

    def workers(self) -> list[str] | None:
        """For each worker `running`, `absent` or its exit code; None where they cannot be reached."""
        # A new machine does not have the script.
        text = self._shell.output(*self._ssh(f"{WORKER} status || echo worker absent"))
        return None if text is None else re.findall(r"worker (?:ended )?(running|absent|\d+)", text)

    def log(self, worker: str) -> bool:
        return self._run(*self._ssh(f"{WORKER} log", worker))

    def stop(self) -> bool:
        return self._run(*self._ssh(f"{WORKER} stop"))


def supervise(tpu: Tpu, command: list[str]) -> int:
    """Keep the command running until it is done, and return its last exit code."""
    crashes = 0  # on these machines
    started = False  # whether an exit code found on a worker is this command's
    last_seen = ""
    while True:
        state = tpu.state()
        workers = tpu.workers() if state == "READY" else None
        seen = " ".join([state, *(workers or [])])
        if seen != last_seen:
            log(seen)
            last_seen = seen

        if state == "NONE":
            if not tpu.create():
                return 1
        elif state == "FAILED":
            log("the request failed: `gcloud compute tpus queued-resources describe` has why; delete, then run again")
            return 1
        elif state in ("SUSPENDED", "PREEMPTED", "TERMINATED"):
            log("the machines are gone: requesting others")
            tpu.delete()
            crashes, started = 0, False
        elif workers and "running" in workers:
            started = True
        elif workers:
            again = started and "absent" not in workers
            if again:
                codes = [int(code) for code in workers]
                if not any(codes):
                    return 0
                if BAD_INPUT in codes:
                    return BAD_INPUT
                crashes += START_AGAIN not in codes
                if crashes > MAX_CRASHES:
                    return max(codes)
                log(f"starting again, after {crashes} crashes")
            started = (again or tpu.install()) and tpu.start(command)
            if not started:
                crashes += 1
                if crashes > MAX_CRASHES:
                    return 1
        time.sleep(POLL_S)


def log(text: str) -> None:
    print(time.strftime("%Y-%m-%dT%H:%M:%S"), text, flush=True)


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = Parser(__doc__)
    parser.add_argument("action", choices=["run", "logs", "stop", "delete"])
    parser.add_argument("name", help="of the TPU: of the queued resource and its node")
    parser.add_argument("--zone", required=True)
    parser.add_argument("--type", help="accelerator type, such as v6e-16 (run)")
    parser.add_argument("--runtime", help="TPU software version, such as v2-alpha-tpuv6e (run)")
    parser.add_argument("--spot", action="store_true", help="spot machines (run)")
    parser.add_argument("--ref", default="HEAD", help="commit, tag or branch to install (run, default: HEAD)")
    parser.add_argument("--worker", default="0", help="the worker whose log to follow (logs, default: 0)")
    parser.add_argument("--dry-run", action="store_true", help="print the commands, and run none")
    options, command = split_command(arguments)
    args = parser.parse_args(options)
    if args.action == "run":
        if not (args.type and args.runtime and command):
            parser.error("run needs more; expected: run NAME --zone ZONE --type TYPE --runtime VERSION -- COMMAND...")
        # Resolved now: when machines are set up again, HEAD may have moved.
        commit = Shell(dry_run=False).output("git", "-C", str(REPOSITORY), "rev-parse", "--quiet", "--verify", args.ref)
        if commit is None:
            parser.error(f"--ref {args.ref} is not a commit, tag or branch of {REPOSITORY}")
        args.ref = commit.strip()
    elif command:
        parser.error(f"{args.action} takes no command; found: {shlex.join(command)}")
    return args, command


def main() -> None:
    args, command = parse(sys.argv[1:])
    tpu = Tpu(args)
    if args.action == "logs":
        sys.exit(not tpu.log(args.worker))
    if args.action == "stop":
        sys.exit(not tpu.stop())
    if args.action == "delete":
        sys.exit(not tpu.delete())
    if args.dry_run:
        sys.exit(not (tpu.create() and tpu.install() and tpu.start(command)))
    try:
        code = supervise(tpu, command)
    except KeyboardInterrupt:
        log("no longer watching: the TPU keeps working, and the same command watches it again")
        sys.exit(130)
    if code == 0:
        tpu.delete()
    else:
        log(f"exit code {code}: the TPU is kept, with its logs; launch/tpu.py delete ends it")
    sys.exit(code)


if __name__ == "__main__":
    main()
