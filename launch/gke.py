"""Run a command on TPU slices or GPU nodes of a GKE cluster, and start it again when its machines go away.

    python launch/gke.py NAME --image IMAGE --tpu tpu-v6e-slice --topology 4x4 [--slices 2] [--spot] -- COMMAND...
    python launch/gke.py NAME --image IMAGE --gpu nvidia-h100-80gb --nodes 2 [--spot] -- COMMAND...

Creates a JobSet with kubectl, in its current context and namespace. The command runs once on every host. On TPU slices
its processes find each other; on several GPU nodes this script adds --coordinator, --num-processes and --process-id to
the command. Its exit code decides what comes next:

    0      done
    75     it was stopped and has saved: all hosts start again, however often that happens
    2      bad input, or a full disk: the JobSet fails at once
    other  a crash: all hosts start again, at most 3 times in all, then the JobSet fails

A host that Kubernetes takes away (spot, drained, evicted) counts as 75, whatever its exit code was.
Needs JobSet 0.10 or later in the cluster. launch/README.md has logs, stopping and deleting.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from typing import Any

from command import Parser, Shell, split_command

BAD_INPUT, START_AGAIN = 2, 75  # exit codes
MAX_CRASHES = 3
# From SIGTERM to SIGKILL. Spot nodes have less: 15 s, unless their node pool says otherwise.
GRACE_S = 120
COORDINATOR_PORT = 8476
SHARED = "/shared"  # the folder that all hosts share


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = Parser(__doc__)
    parser.add_argument("name", help="of the JobSet: lower case letters, digits and hyphens")
    parser.add_argument("--image", required=True, help="container image with the package, see launch/Dockerfile")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--tpu", metavar="TYPE", help="label cloud.google.com/gke-tpu-accelerator of the nodes")
    kind.add_argument("--gpu", metavar="TYPE", help="label cloud.google.com/gke-accelerator of the nodes")
    parser.add_argument("--topology", help="chips of a TPU slice: 4x4, 2x2x4")
    parser.add_argument("--chips-per-host", type=int, default=4, help="TPU chips of a node (default: 4)")
    parser.add_argument("--slices", type=int, default=1, help="TPU slices, each a node pool (default: 1)")
    parser.add_argument("--nodes", type=int, default=1, help="GPU nodes (default: 1)")
    parser.add_argument("--gpus-per-node", type=int, default=8, help="(default: 8)")
    parser.add_argument("--claim", help=f"PersistentVolumeClaim that every host gets at {SHARED}")
    parser.add_argument("--spot", action="store_true", help="on spot nodes")
    parser.add_argument("--dry-run", action="store_true", help="print the manifest, and create nothing")
    options, command = split_command(arguments)
    args = parser.parse_args(options)
    if not command:
        parser.error("no command; expected: launch/gke.py NAME OPTIONS -- COMMAND...")
    # A pod's host name is NAME-host-SLICE-HOST and may have 63 characters.
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", args.name):
        parser.error(f"name {args.name!r}; expected at most 40 lower case letters, digits and hyphens, a letter first")
    for option in ("chips_per_host", "slices", "nodes", "gpus_per_node"):
        if getattr(args, option) < 1:
            parser.error(f"--{option.replace('_', '-')} {getattr(args, option)}; expected 1 or more")
    if args.tpu and not re.fullmatch(r"\d+(x\d+){1,2}", args.topology or ""):
        parser.error(f"--topology {args.topology}; expected the slice's chips with --tpu, such as 4x4 or 2x2x4")
    if args.tpu and num_chips(args) % args.chips_per_host:
        parser.error(f"--topology {args.topology} has {num_chips(args)} chips, not a multiple of --chips-per-host")
    return args, command


def num_chips(args: argparse.Namespace) -> int:
    return math.prod(map(int, args.topology.split("x")))


def manifest(args: argparse.Namespace, command: list[str]) -> dict[str, Any]:
    """The JobSet: one replicated job, `host`, with one pod for each host; for TPUs a job for each slice."""
    if args.tpu:
        num_hosts, devices = num_chips(args) // args.chips_per_host, {"google.com/tpu": args.chips_per_host}
        nodes = {"cloud.google.com/gke-tpu-accelerator": args.tpu, "cloud.google.com/gke-tpu-topology": args.topology}
        # A slice is a node pool, and each job needs its own.
        annotations = {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"}
    else:
        num_hosts, devices = args.nodes, {"nvidia.com/gpu": args.gpus_per_node}
        nodes, annotations = {"cloud.google.com/gke-accelerator": args.gpu}, {}
    if args.gpu and num_hosts > 1:
        # On GPU nodes JAX cannot find the other hosts by itself. Kubernetes fills in $(JOB_COMPLETION_INDEX).
        command = [
            *command,
            f"--coordinator={args.name}-host-0-0.{args.name}:{COORDINATOR_PORT}",
            f"--num-processes={num_hosts}",
            "--process-id=$(JOB_COMPLETION_INDEX)",
        ]
    tolerations = [{"key": key, "operator": "Exists"} for key in devices]
    if args.spot:
        nodes["cloud.google.com/gke-spot"] = "true"
        tolerations.append({"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true"})

    pod = {
        "restartPolicy": "Never",  # the JobSet restarts all hosts together
        "terminationGracePeriodSeconds": GRACE_S,
        "nodeSelector": nodes,
        "tolerations": tolerations,
        "containers": [
            {
                "name": "main",
                "image": args.image,
                "command": command,
                "resources": {"limits": devices},
                # For NCCL's buffers: the default of 64 MB is too small.
                "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
            }
        ],
        "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}],
    }
    if args.claim:
        pod["volumes"].append({"name": "shared", "persistentVolumeClaim": {"claimName": args.claim}})
        pod["containers"][0]["volumeMounts"].append({"name": "shared", "mountPath": SHARED})
    if args.tpu:
        pod |= {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}  # faster between slices
    job = {
        "completionMode": "Indexed",
        "parallelism": num_hosts,
        "completions": num_hosts,
        "backoffLimit": 0,
        # A JobSet's rules see no exit codes. A job that fails by one of these rules has the reason PodFailurePolicy and
        # the exit code in its message, any other the reason BackoffLimitExceeded.
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "FailJob",
                    "onExitCodes": {"containerName": "main", "operator": "In", "values": [BAD_INPUT, START_AGAIN]},
                },
                {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            ]
        },
        "template": {"spec": pod},
    }
    rules = [
        {
            "name": "badInput",
            "action": "FailJobSet",
            "onJobFailureReasons": ["PodFailurePolicy"],
            "onJobFailureMessagePatterns": [f"failed with exit code {BAD_INPUT} "],
        },
        {
            "name": "stopped",
            "action": "RestartJobSetAndIgnoreMaxRestarts",
            "onJobFailureReasons": ["PodFailurePolicy"],
        },
    ]
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": args.name, "annotations": annotations},
        "spec": {
            "failurePolicy": {"maxRestarts": MAX_CRASHES, "rules": rules},
            "replicatedJobs": [{"name": "host", "replicas": args.slices, "template": {"spec": job}}],
        },
    }


def main() -> None:
    args, command = parse(sys.argv[1:])
    text = json.dumps(manifest(args, command), indent=2)  # kubectl reads JSON as it reads YAML
    if args.dry_run:
        print(text)
    else:
        sys.exit(Shell(dry_run=False).run("kubectl", "create", "--filename=-", stdin=text))


if __name__ == "__main__":
    main()
