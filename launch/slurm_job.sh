#!/usr/bin/env bash
# The batch script that launch/slurm.sh submits: runs its arguments as a job step and acts on the exit code.
set -euo pipefail

readonly DONE=0 BAD_INPUT=2 START_AGAIN=75
readonly MAX_CRASHES=3

log() {
    echo "slurm_job.sh: $*"
}

# Since 22.05 srun no longer takes --cpus-per-task from sbatch.
if [[ -v SLURM_CPUS_PER_TASK ]]; then
    export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
fi

# One task of a job array has the number of the whole array, which would requeue all of them.
job=$SLURM_JOB_ID
if [[ -v SLURM_ARRAY_TASK_ID ]]; then
    job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
fi

log "job $job on $SLURM_JOB_NODELIST, requeued ${SLURM_RESTART_COUNT:-0} times, $(date --utc +%FT%TZ)"
for ((crashes = 1; ; crashes++)); do
    # Whatever the cluster's default, a task that has saved and ended must not kill those that are still saving.
    code=0
    srun --kill-on-bad-exit=0 --label "$@" || code=$?
    case $code in
        "$DONE" | "$BAD_INPUT")
            exit "$code"
            ;;
        "$START_AGAIN")
            # SLURM ends the job itself where it cancels, preempts or requeues it; a cancelled one would come back.
            if [[ $(squeue --noheader --format=%T --jobs="$job") != COMPLETING ]]; then
                log "exit code $code: requeueing"
                scontrol requeue "$job" || log "SLURM refused: submit again to resume"
            fi
            exit "$code"
            ;;
    esac
    if ((crashes > MAX_CRASHES)); then
        log "exit code $code, after $MAX_CRASHES crashes: giving up"
        exit "$code"
    fi
    log "exit code $code, crash $crashes: starting again"
done
