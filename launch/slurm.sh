#!/usr/bin/env bash
# Submits launch/slurm_job.sh; see --help.
set -euo pipefail

usage() {
    cat <<'EOF'
Run a command on a SLURM cluster, and start it again whenever the cluster stops it.

    launch/slurm.sh [--dry-run] [SBATCH OPTIONS] -- COMMAND...

The command runs once for each task (--ntasks, --ntasks-per-node), as one job step. Its exit code decides what comes next:

    0      done
    75     it was stopped and has saved: the job is requeued, and resumes when SLURM starts it again
    2      bad input, or a full disk: the job fails at once
    other  a crash: started again in the same allocation, at most 3 times, then the job fails

SLURM stops the tasks by SIGTERM: 120 s before the time limit (--signal=TERM@120, yours to override), and when
the job is preempted, requeued or cancelled. A cancelled job stays cancelled. A job whose node fails is requeued.

The log is sbatch's (slurm-JOBID.out where you submit, or --output); every start appends to it, and each line begins
with the number of its task. The environment of this shell goes with the job: activate the virtual environment first.

    --dry-run   print the command that would submit, and submit nothing
    --help      this text

JAX needs one task for each GPU, and each task must see all GPUs of its node. Two nodes of 8:

    launch/slurm.sh --nodes=2 --ntasks-per-node=8 --gpus-per-node=8 --cpus-per-task=12 --time=24:00:00 -- \
        python -m hafm_jax.train --config configs/base.py --config.stage=coarse --data TOKENS --workdir runs/coarse

A job array with one seed for each of its tasks; exec, so that SIGTERM reaches python and not its shell:

    launch/slurm.sh --array=0-4 --gpus=1 -- bash -c 'exec python -m hafm_jax.train --config configs/base.py \
        --config.seed="$SLURM_ARRAY_TASK_ID" --data TOKENS --workdir "runs/seed$SLURM_ARRAY_TASK_ID"'
EOF
}

fail() {
    echo "error: $1" >&2
    exit 2
}

dry_run=false
options=()
while [[ $# -gt 0 && $1 != -- ]]; do
    case $1 in
        -h | --help) usage && exit ;;
        --dry-run) dry_run=true ;;
        *) options+=("$1") ;;
    esac
    shift
done
[[ $# -gt 1 ]] || fail "no command; expected: launch/slurm.sh [SBATCH OPTIONS] -- COMMAND..., see --help"
shift

# Later options win, so the user's override ours.
job=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/slurm_job.sh
submit=(sbatch --requeue --open-mode=append --signal=TERM@120 "${options[@]}" "$job" "$@")
if $dry_run; then
    printf '%q ' "${submit[@]}"
    echo
    exit
fi
command -v sbatch >/dev/null || fail "sbatch is not installed here; run this where jobs are submitted, or give --dry-run"
exec "${submit[@]}"
