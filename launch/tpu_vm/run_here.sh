#!/usr/bin/env bash
# Runs one command of this checkout on this machine, alone; run_all.sh calls it on every machine of a slice.
#
#   launch/tpu_vm/run_here.sh --chip=tpu_v5e -- -m ebt_jax.train --config=configs/oxe.py --workdir=/mnt/runs/oxe
#
# A process outlives the ssh connection that started it, and keeps the chips. One that is still there is asked to end, so that
# training saves, and killed after --stop_seconds. Exit code: the command's; 1 where the earlier one stays, 127 where install.sh has not
# succeeded on this machine.
# shellcheck source=../options.sh
source "$(dirname "${BASH_SOURCE[0]}")/../options.sh"
chip=-
cache_dir=
stop_seconds=120
option chip "one of launch/xla_flags, e.g. tpu_v5e"
option cache_dir "folder of compiled programs, shared by all machines; default: one of this machine's own"
option stop_seconds "that an earlier command has to end by itself"
parse "$@"
if [ ${#REST[@]} -eq 0 ]; then fail "a command must follow --, e.g. -- -m ebt_jax.train --config=..."; fi

cd "$REPOSITORY"
holder="$HOME/.ebt_jax.pid"
if ! $DRY_RUN; then
    if [ ! -f .installed ]; then
        echo "error: $REPOSITORY must be installed on every machine, got no .installed on $HOSTNAME. Run launch/tpu_vm/install.sh" >&2
        exit 127
    fi
    # Whoever runs holds this lock to its end: a number in a file alone could by then be another process's.
    exec 9<>"$holder"
    if ! flock --nonblock 9; then
        earlier=$(<"$holder")
        echo "ending an earlier command, process $earlier"
        kill -TERM "$earlier" || true
        if ! flock --timeout "$stop_seconds" 9; then
            kill -KILL "$earlier" || true
            if ! flock --timeout 10 9; then
                echo "error: an earlier command must end before another starts, got process $earlier or a child of it on $HOSTNAME. End it there" >&2
                exit 1
            fi
        fi
    fi
    echo $$ >"$holder"
fi
if [ -n "$cache_dir" ]; then export JAX_COMPILATION_CACHE_DIR="$cache_dir"; fi
run source launch/env.sh "$chip"
run exec .venv/bin/python "${REST[@]}"
