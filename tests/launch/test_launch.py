"""The launchers: the commands that they would run, and the TPU supervisor against a script that simulates Google Cloud.

tests/slurm has launch/slurm.sh against a real SLURM.
"""

from __future__ import annotations

import importlib
import json
import os
import shlex
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
from helpers import ROOT

LAUNCH = ROOT / "launch"
SLURM = [LAUNCH / "slurm.sh"]
GKE = [sys.executable, LAUNCH / "gke.py"]
TPU = [sys.executable, LAUNCH / "tpu.py"]
TPU_SLICE = ["--image", "repo/hafm:1", "--tpu", "tpu-v6e-slice", "--topology", "4x4"]
GPU_NODES = ["--image", "repo/hafm:1", "--gpu", "nvidia-h100-80gb"]
TPU_RUN = ["run", "pod", "--zone", "here-a", "--type", "v6e-16", "--runtime", "v2-alpha-tpuv6e"]
# A command that a launcher must pass on unchanged.
COMMAND = ["python", "-m", "hafm_jax.train", "--data", "a token set", "--workdir", "it's $HOME;*", "--", '"last"']


def launch(program: list, *arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([*program, *arguments], capture_output=True, text=True, timeout=60, **options)


def printed(program: list, *arguments: str) -> str:
    done = launch(program, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_shellcheck():
    scripts = sorted(map(str, [*LAUNCH.glob("*.sh"), ROOT / ".ci" / "run"]))
    done = launch([Path(sys.executable).parent / "shellcheck"], *scripts)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("program", [SLURM, GKE, TPU], ids=["slurm", "gke", "tpu"])
def test_help_teaches(program):
    text = printed(program, "--help")
    assert " -- COMMAND..." in text
    for part in ("--dry-run", "    0      done", "    75     ", "    2      bad input", "    other  a crash"):
        assert part in text


@pytest.mark.parametrize(
    ("program", "arguments", "message"),
    [
        (SLURM, [], "no command"),
        (SLURM, ["--nodes=2", "python"], "no command"),
        (SLURM, ["--nodes=2", "--"], "no command"),
        (GKE, ["run"], "--image"),
        (GKE, ["run", *TPU_SLICE], "no command"),
        (GKE, ["run", "--image", "x", "--", "true"], "one of the arguments --tpu --gpu is required"),
        (GKE, ["Run_1", *TPU_SLICE, "--", "true"], "name 'Run_1'"),
        (GKE, ["run", *TPU_SLICE[:4], "--", "true"], "--topology None"),
        (GKE, ["run", *TPU_SLICE, "--chips-per-host", "5", "--", "true"], "16 chips"),
        (GKE, ["run", *GPU_NODES, "--nodes", "0", "--", "true"], "--nodes 0; expected 1 or more"),
        (TPU, ["run", "pod", "--zone", "here-a", "--", "true"], "run needs more"),
        (TPU, [*TPU_RUN, "--ref", "no-such-branch", "--", "true"], "--ref no-such-branch is not a commit"),
        (TPU, ["stop", "pod", "--zone", "here-a", "--", "true"], "stop takes no command"),
        (TPU, ["pause", "pod", "--zone", "here-a"], "invalid choice"),
    ],
)
def test_bad_arguments_end_in_one_line(program, arguments, message):
    done = launch(program, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert message in done.stderr


def test_slurm_submits_with_the_users_options_last():
    text = printed(SLURM, "--nodes=2", "--comment=two words", "--dry-run", "--signal=TERM@300", "--", *COMMAND)
    sbatch, *options = shlex.split(text)
    at = options.index(str(LAUNCH / "slurm_job.sh"))
    assert sbatch == "sbatch"
    assert options[at + 1 :] == COMMAND
    assert set(options[:at]) >= {"--requeue", "--open-mode=append", "--nodes=2", "--comment=two words"}
    assert "--dry-run" not in options
    assert options.index("--signal=TERM@300") > options.index("--signal=TERM@120")  # sbatch takes the last


def job_set(*arguments: str) -> dict:
    return json.loads(printed(GKE, "run-1", *arguments, "--dry-run", "--", *COMMAND))


def parts(manifest: dict) -> tuple[dict, dict, dict, dict]:
    """The replicated job of a JobSet, its job, its pod and its container."""
    (replicated,) = manifest["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    return replicated, job, pod, container


def test_gke_tpu_slices():
    manifest = job_set(*TPU_SLICE, "--slices", "2", "--spot")
    assert (manifest["apiVersion"], manifest["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert manifest["metadata"]["name"] == "run-1"
    topology = manifest["metadata"]["annotations"]["alpha.jobset.sigs.k8s.io/exclusive-topology"]
    assert topology == "cloud.google.com/gke-nodepool"
    replicated, job, pod, container = parts(manifest)
    assert replicated["replicas"] == 2
    assert job["parallelism"] == job["completions"] == 4  # 16 chips, 4 a host
    assert container["command"] == COMMAND
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice",
        "cloud.google.com/gke-tpu-topology": "4x4",
        "cloud.google.com/gke-spot": "true",
    }


def test_gke_gpu_nodes_join_each_other():
    manifest = job_set(*GPU_NODES, "--nodes", "3")
    assert manifest["metadata"]["annotations"] == {}
    replicated, job, _, container = parts(manifest)
    host = f"run-1-{replicated['name']}-0-0.{manifest['metadata']['name']}"
    assert (replicated["replicas"], job["parallelism"], job["completionMode"]) == (1, 3, "Indexed")
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}
    joining = [f"--coordinator={host}:8476", "--num-processes=3", "--process-id=$(JOB_COMPLETION_INDEX)"]
    assert container["command"] == COMMAND + joining


def test_gke_one_gpu_node_joins_no_other():
    *_, container = parts(job_set(*GPU_NODES))
    assert container["command"] == COMMAND


def test_gke_hosts_share_a_claim():
    _, _, pod, container = parts(job_set(*TPU_SLICE, "--claim", "runs"))
    (volume,) = [v for v in pod["volumes"] if v.get("persistentVolumeClaim") == {"claimName": "runs"}]
    mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
    assert mounts[volume["name"]] == "/shared" and len(mounts) == len(pod["volumes"]) == 2


def test_tpu_worker_mounts_once(tmp_path):
    """Against a sudo and a mountpoint that only record their arguments."""
    (tmp_path / "sudo").write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\n')
    (tmp_path / "mountpoint").write_text(f"#!/bin/sh\ngrep -q '^mount ' {tmp_path}/asked 2>/dev/null\n")
    for name in ("sudo", "mountpoint"):
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    for _ in range(2):
        command = [LAUNCH / "tpu_worker.sh", "mount", "10.0.0.2:/runs", "/mnt/share"]
        subprocess.run(command, env=environment, check=True)
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked.count("mount -t nfs 10.0.0.2:/runs /mnt/share") == 1
    assert asked[-1] == "chmod 1777 /mnt/share" and len(asked) == 5


@pytest.fixture(scope="module")
def tpu_slice() -> dict:
    return job_set(*TPU_SLICE)


def job_set_action(manifest: dict, exit_code: int, disrupted: bool) -> str:
    """The action on a JobSet when a pod ends so, by the rules of the Job and of the JobSet controller."""
    _, job, pod, _ = parts(manifest)
    reason, message = "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    assert job["backoffLimit"] == 0 and pod["restartPolicy"] == "Never"
    for index, rule in enumerate(job["podFailurePolicy"]["rules"]):
        if "onExitCodes" in rule:
            matches = rule["onExitCodes"]["operator"] == "In" and exit_code in rule["onExitCodes"]["values"]
            what = f"Container main for pod default/run-1-host-0-0-x failed with exit code {exit_code}"
        else:
            matches = disrupted and {"type": "DisruptionTarget", "status": "True"} in rule["onPodConditions"]
            what = "Pod default/run-1-host-0-0-x has condition DisruptionTarget"
        if matches:
            reason, message = "PodFailurePolicy", f"{what} matching {rule['action']} rule at index {index}"
            break
    for rule in manifest["spec"]["failurePolicy"]["rules"]:
        patterns = rule.get("onJobFailureMessagePatterns", [""])
        if reason in rule["onJobFailureReasons"] and any(pattern in message for pattern in patterns):
            return rule["action"]
    return "RestartJobSet"


@pytest.mark.parametrize(
    ("exit_code", "disrupted", "action"),
    [
        (75, False, "RestartJobSetAndIgnoreMaxRestarts"),
        (75, True, "RestartJobSetAndIgnoreMaxRestarts"),
        (137, True, "RestartJobSetAndIgnoreMaxRestarts"),
        (2, False, "FailJobSet"),
        (1, False, "RestartJobSet"),
        (137, False, "RestartJobSet"),
    ],
)
def test_gke_exit_codes(tpu_slice, exit_code, disrupted, action):
    assert job_set_action(tpu_slice, exit_code, disrupted) == action
    assert tpu_slice["spec"]["failurePolicy"]["maxRestarts"] == 3


def test_tpu_dry_run():
    lines = [shlex.split(line) for line in printed(TPU, *TPU_RUN, "--spot", "--dry-run", "--", *COMMAND).splitlines()]
    create, archive, copy, install, start = lines
    assert create[:6] == ["gcloud", "compute", "tpus", "queued-resources", "create", "pod"]
    assert set(create) >= {"--node-id=pod", "--accelerator-type=v6e-16", "--runtime-version=v2-alpha-tpuv6e", "--spot"}
    head = subprocess.check_output(["git", "-C", ROOT, "rev-parse", "HEAD"], text=True).strip()
    assert archive[:2] == ["git", "-C"] and archive[-1] == head
    assert copy[:5] == ["gcloud", "compute", "tpus", "tpu-vm", "scp"] and copy[6] == "pod:"
    for line in (copy, install, start):
        assert {"--zone=here-a", "--worker=all"} <= set(line)
    (remote,) = (word.removeprefix("--command=") for word in start if word.startswith("--command="))
    assert shlex.split(remote) == ["hafm_jax/launch/tpu_worker.sh", "start", *COMMAND]


# Simulates gcloud for a TPU of two workers, each with a folder as its home: states are files, and a command over ssh
# runs on this machine. Setting up a worker, which needs a network, only copies this working tree's worker script.
# Deleting moves the folders away at once, though a command that is ending may still write there.
GCLOUD = """#!/usr/bin/env bash
set -euo pipefail
cd "$CLOUD"
echo "$4 $3" >>calls
case "$4 $3" in
    "list queued-resources") [[ ! -e state ]] || echo "projects/p/locations/here-a/queuedResources/pod $(<state)" ;;
    "create queued-resources") echo ACTIVE >state && echo READY >node && mkdir 0 1 ;;
    "delete queued-resources") rm -f state node && mv 0 1 "$(mktemp --directory ../gone.XXX)" ;;
    "describe tpu-vm") cat node ;;
    "scp tpu-vm") cp "$5" 0 && cp "$5" 1 ;;
    "ssh tpu-vm")
        for option; do [[ $option != --command=* ]] || remote=${option#--command=}; done
        if [[ $remote == *"tpu_worker.sh setup" ]]; then
            remote="${remote%hafm_jax*} mkdir -p hafm_jax/launch && cp '$WORKER' hafm_jax/launch"
        fi
        for worker in 0 1; do (cd $worker && bash -c "$remote"); done
        ;;
    *) exit 1 ;;
esac
"""


@pytest.fixture
def cloud(monkeypatch, tmp_path):
    """The folder of the simulated cloud. A command finds it in $CLOUD."""
    folder = tmp_path / "cloud"
    folder.mkdir()
    gcloud = tmp_path / "bin" / "gcloud"
    gcloud.parent.mkdir()
    gcloud.write_text(GCLOUD)
    gcloud.chmod(0o755)
    monkeypatch.setenv("PATH", f"{gcloud.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("CLOUD", str(folder))
    monkeypatch.setenv("WORKER", str(LAUNCH / "tpu_worker.sh"))
    monkeypatch.syspath_prepend(LAUNCH)
    return folder


def supervised(monkeypatch, cloud: Path, program: str, event=None) -> tuple[int, list[str]]:
    """(exit code of `tpu.py run`, gcloud's calls). `event` happens once, when the command runs on both workers.

    `program` is bash; its $starts is the number of times that this worker's command has been started.
    """
    tpu = importlib.import_module("tpu")
    events = [event] if event else []
    looks = iter(range(100))

    def sleep(_seconds: float) -> None:
        assert next(looks, None) is not None, "no end in sight"
        time.sleep(0.1)
        if events and len(list(cloud.glob("?/ready"))) == 2:
            events.pop()()

    counted = 'name=$CLOUD/starts.$(basename "$(dirname "$PWD")"); echo >>"$name"; starts=$(wc -l <"$name"); ' + program
    monkeypatch.setattr(tpu, "time", types.SimpleNamespace(sleep=sleep, strftime=time.strftime))
    monkeypatch.setattr(sys, "argv", ["tpu.py", *TPU_RUN, "--", "bash", "-c", counted])
    with pytest.raises(SystemExit) as end:
        tpu.main()
    assert not events
    calls = (cloud / "calls").read_text().splitlines()
    return end.value.code, [call.split()[0] for call in calls if call.split()[0] not in ("list", "describe")]


def num_starts(cloud: Path) -> list[int]:
    return [len((cloud / f"starts.{worker}").read_text().splitlines()) for worker in range(2)]


def test_a_preempted_tpu_is_requested_again(monkeypatch, cloud):
    def preempt():
        for worker in range(2):
            launch([cloud / str(worker) / "hafm_jax" / "launch" / "tpu_worker.sh"], "stop")
        (cloud / "node").write_text("PREEMPTED\n")

    program = "touch ../ready; if ((starts == 1)); then sleep 60; fi"
    code, calls = supervised(monkeypatch, cloud, program, preempt)
    assert code == 0
    assert num_starts(cloud) == [2, 2]
    assert (calls.count("create"), calls.count("delete")) == (2, 2)
    # A watcher that looks between the workers' end and the node's end copies to a machine that is about to go.
    assert calls.count("scp") in (2, 3)
    assert calls[-1] == "delete"


def test_a_stopped_tpu_command_restarts_on_the_same_machines(monkeypatch, cloud):
    def stop():
        assert launch(TPU, "stop", "pod", "--zone", "here-a").returncode == 0

    program = "if ((starts == 1)); then trap 'exit 75' TERM; touch ../ready; while :; do sleep 0.1; done; fi"
    code, calls = supervised(monkeypatch, cloud, program, stop)
    assert code == 0
    assert num_starts(cloud) == [2, 2]
    assert (calls.count("create"), calls.count("scp"), calls.count("delete")) == (1, 1, 1)


def test_tpu_command_may_be_stopped_any_number_of_times(monkeypatch, cloud):
    assert supervised(monkeypatch, cloud, "((starts > 6)) || exit 75")[0] == 0
    assert num_starts(cloud) == [7, 7]


@pytest.mark.parametrize(("exit_code", "starts"), [(2, 1), (7, 4)])
def test_tpu_command_that_fails(monkeypatch, cloud, exit_code, starts):
    code, calls = supervised(monkeypatch, cloud, f"echo what went wrong; exit {exit_code}")
    assert code == exit_code
    assert num_starts(cloud) == [starts, starts]
    assert "delete" not in calls
    assert (cloud / "0" / "hafm_jax.log").read_text().splitlines() == ["what went wrong"] * starts


def test_a_second_tpu_run_does_not_end_with_the_firsts_exit_code(monkeypatch, cloud):
    assert supervised(monkeypatch, cloud, "exit 2")[0] == 2
    code, calls = supervised(monkeypatch, cloud, "exit 0")
    assert code == 0
    assert num_starts(cloud) == [2, 2]
    assert calls.count("create") == 1


def test_tpu_crashes_of_one_worker_count(monkeypatch, cloud):
    code, _calls = supervised(monkeypatch, cloud, "[[ $name == *0 ]] || exit 134")
    assert code == 134
