#!/usr/bin/env bash
# Run by launch/tpu.py on every worker of a TPU: tpu_worker.sh setup | start COMMAND... | status | log | stop
# For use in commands: tpu_worker.sh mount ADDRESS:/SHARE FOLDER
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Beside the repository, not in it: a new setup keeps them.
log=$repository.log
pid_file=$repository.pid
exit_file=$repository.exit

case ${1-} in
    setup)
        # The machines' own Python may be too old for the package: uv installs one.
        cd "$repository"
        python3 -m pip install --quiet --user uv
        python3 -m uv venv --quiet --allow-existing --python 3.12 .venv
        python3 -m uv pip install --quiet --python .venv --constraint constraints.txt "jax[tpu]" --editable ".[train]"
        ;;
    start)
        shift
        rm -f "$exit_file"
        cd "$repository"
        export PATH=$repository/.venv/bin:$PATH
        # In a session of its own, so that it outlives the connection. SIGTERM goes to the shell too, which must survive
        # it to write the exit code. The lock lasts as long as the processes, while process ids are reused after a reboot.
        # shellcheck disable=SC2016 # expanded by the inner shell
        setsid flock "$pid_file" bash -c 'trap : TERM; "${@:2}"; echo $? >"$1"' bash "$exit_file" "$@" >>"$log" 2>&1 </dev/null &
        echo $! >"$pid_file"
        ;;
    status)
        if [[ -s $exit_file ]]; then
            echo "worker ended $(<"$exit_file")"
        elif [[ -s $pid_file ]] && ! flock --nonblock "$pid_file" true; then
            echo "worker running"
        else
            echo "worker absent"
        fi
        ;;
    log)
        exec tail -n 100 -F "$log"
        ;;
    stop)
        if [[ -s $pid_file ]] && ! flock --nonblock "$pid_file" true; then
            kill -TERM -- "-$(<"$pid_file")"
        fi
        ;;
    mount)
        # A folder that all workers share, by NFS; a new share belongs to root. After a restart it is mounted already.
        if ! mountpoint --quiet "$3"; then
            sudo apt-get update --quiet=2
            sudo apt-get install --quiet=2 --yes nfs-common
            sudo mkdir -p "$3"
            sudo mount -t nfs "$2" "$3"
            sudo chmod 1777 "$3"
        fi
        ;;
    *)
        echo "error: ${1-nothing}; expected tpu_worker.sh setup | start COMMAND... | status | log | stop | mount" >&2
        exit 2
        ;;
esac
