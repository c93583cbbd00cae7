"""launch/slurm.sh against a real SLURM: joining, stopping, requeueing, failing. Run by `make test-slurm`.

The first test trains; the others run stand_in.py, which keeps the training command's contract and starts at once. Three
minutes, most of them SLURM's own waiting.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
from helpers import ROOT, read_lines
from helpers.training_runs import ENVIRONMENT, finish, losses, start_two, token_set_of, training
from slurm.cluster import Cluster, running_cluster, wait_for

HERE = Path(__file__).resolve().parent
LAUNCH = ROOT / "launch" / "slurm.sh"
NUM_STEPS = 60


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the cluster ends as on Ctrl-C, jobs and all
    with running_cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def token_set(tmp_path_factory, tokenizers):
    return token_set_of(tmp_path_factory.mktemp("tokens"), tokenizers)


class Job:
    """The stand-in, submitted with a work directory of its own, whose name has a space."""

    def __init__(self, cluster: Cluster, workdir: Path, *options: str, arguments: tuple = (NUM_STEPS,)):
        self.workdir = workdir / "work dir"
        self.workdir.mkdir()
        self.cluster = cluster
        self.log = self.workdir / "log"
        command = [sys.executable, HERE / "stand_in.py", self.workdir, *map(str, arguments)]
        self.id = cluster.run(LAUNCH, "--parsable", f"--output={self.log}", *options, "--", *command).strip()

    def steps(self) -> list[dict]:
        return read_lines(self.workdir / "steps.jsonl")

    def show(self) -> dict[str, str]:
        return self.cluster.show(self.id)

    def wait_for_start(self, start: int) -> None:
        """Until the `start`-th start, from 0, has made steps."""
        wait_for(f"start {start}", lambda: any(line["start"] == start for line in self.steps()), 60)

    def wait_for_end(self) -> dict[str, str]:
        self.cluster.wait_for_state(self.id, "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
        return self.show()

    def num_starts(self) -> int:
        return self.log.read_text().count("process 0 of")


def test_training_resumes_where_it_was_stopped(cluster, token_set, tmp_path):
    flags = ("--config.steps=60", "--config.checkpoint_every=30")
    finish(*start_two(token_set, tmp_path / "undisturbed", *flags))
    run, log = tmp_path / "run", tmp_path / "log"
    command = ["env", *(f"{k}={v}" for k, v in ENVIRONMENT.items()), *training(token_set, run, *flags)]
    job = cluster.run(LAUNCH, "--parsable", f"--output={log}", "--ntasks=2", "--", *command).strip()
    wait_for("steps", lambda: max(losses(run), default=0) >= 10, 120)
    cluster.run("scancel", "--signal=TERM", job)
    cluster.wait_for_state(job, "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", timeout_s=180)
    end = cluster.show(job)
    printed = log.read_text(errors="replace")  # where two progress bars met, SLURM cuts characters in half
    assert (end["JobState"], end["ExitCode"], end["Restarts"]) == ("COMPLETED", "0:0", "1"), printed
    assert printed.count("preempted: step") == 2 and "exit code 75: requeueing" in printed
    assert losses(run) == losses(tmp_path / "undisturbed")  # every step's, bit for bit


def test_two_processes_join_and_resume_after_every_stop(cluster, tmp_path):
    job = Job(cluster, tmp_path, "--ntasks=2")
    job.wait_for_start(0)
    cluster.run("scancel", "--signal=TERM", job.id)  # as before the time limit
    job.wait_for_start(1)
    cluster.run("scontrol", "requeue", job.id)  # as on preemption
    job.wait_for_start(2)
    end = job.wait_for_end()

    assert (end["JobState"], end["ExitCode"], end["Restarts"]) == ("COMPLETED", "0:0", "2")
    steps = job.steps()
    assert [line["step"] for line in steps] == list(range(NUM_STEPS))  # none lost, none made twice
    assert {line["processes"] for line in steps} == {2}
    assert sorted({line["start"] for line in steps}) == [0, 1, 2]
    log = job.log.read_text()
    assert log.count("0: process 0 of 2") == log.count("1: process 1 of 2") == 3  # of every start
    assert log.count("saved after step") == 4  # both processes, at both stops


def test_time_limit_requeues(cluster, tmp_path):
    job = Job(cluster, tmp_path, "--ntasks=2", "--time=1", "--signal=TERM@50", arguments=(1_000,))
    job.wait_for_start(0)
    job.wait_for_start(1)
    cluster.run("scancel", job.id)
    assert "exit code 75: requeueing" in job.log.read_text()
    assert [line["step"] for line in job.steps()] == list(range(len(job.steps())))


def test_a_preempted_job_saves_and_resumes(cluster, tmp_path):
    job = Job(cluster, tmp_path, "--ntasks=2")
    job.wait_for_start(0)
    cluster.run("srun", "--partition=urgent", "--ntasks=2", "true")
    end = job.wait_for_end()
    assert (end["JobState"], end["ExitCode"], end["Restarts"]) == ("COMPLETED", "0:0", "1")
    assert [line["step"] for line in job.steps()] == list(range(NUM_STEPS))
    assert job.log.read_text().count("saved after step") == 2


def test_a_task_that_has_saved_does_not_end_the_others(cluster, tmp_path):
    log = tmp_path / "log"
    program = "trap 'echo ended by another' TERM; sleep $((2 * SLURM_PROCID)); exit 2"
    job = cluster.run(LAUNCH, "--parsable", f"--output={log}", "--ntasks=2", "--", "bash", "-c", program).strip()
    cluster.wait_for_state(job, "FAILED")
    assert "ended by another" not in log.read_text()


def test_bad_input_is_not_tried_again(cluster, tmp_path):
    job = Job(cluster, tmp_path, "--ntasks=2", arguments=(NUM_STEPS, 2))
    end = job.wait_for_end()
    assert (end["JobState"], end["ExitCode"], end["Restarts"]) == ("FAILED", "2:0", "0")
    assert job.num_starts() == 1


def test_crashes_are_tried_three_times_more(cluster, tmp_path):
    job = Job(cluster, tmp_path, "--ntasks=1", arguments=(NUM_STEPS, 7))
    end = job.wait_for_end()
    assert (end["JobState"], end["ExitCode"], end["Restarts"]) == ("FAILED", "7:0", "0")
    assert job.num_starts() == 4


def test_cancelled_stays_cancelled(cluster, tmp_path):
    job = Job(cluster, tmp_path, "--ntasks=2")
    job.wait_for_start(0)
    cluster.run("scancel", job.id)
    end = job.wait_for_end()
    wait_for("the end of all processes", lambda: not cluster.run("squeue", "--noheader"), 60)
    assert (job.show()["JobState"], end["Restarts"]) == ("CANCELLED", "0")
    assert job.log.read_text().count("saved after step") == 2  # both had the time
    assert len(job.steps()) < NUM_STEPS


def test_one_task_of_an_array_is_requeued_alone(cluster, tmp_path):
    job = Job(cluster, tmp_path, "--array=0-1")  # --ntasks may be left out
    wait_for("both tasks", lambda: job.log.exists() and job.num_starts() == 2, 60)
    tasks = [f"{job.id}_{index}" for index in range(2)]
    # The task that SLURM gave the number of the whole array.
    leader = next(task for task in tasks if cluster.show(task)["JobId"] == job.id)
    other = next(task for task in tasks if task != leader)
    cluster.run("scancel", "--signal=TERM", leader)
    wait_for("requeued", lambda: cluster.show(leader)["Restarts"] == "1", 60)
    assert cluster.show(other)["Restarts"] == "0"
    cluster.run("scancel", job.id)
