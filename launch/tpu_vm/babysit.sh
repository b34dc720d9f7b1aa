#!/usr/bin/env bash
# Keeps a run going on a slice that may be taken away: makes it again, installs, starts the same command, until it is done.
#
#   launch/tpu_vm/babysit.sh --name=pod --zone=us-west4-a --type=v5litepod-256 --image=v2-alpha-tpuv5-lite --chip=tpu_v5e -- -m ebt_jax.train \
#       --config=configs/oxe.py --config.data.data_dir=/mnt/oxe --config.data.cache_dir=/mnt/runs/.cache/index --workdir=/mnt/runs/oxe
#
# Training resumes by itself, so a restart is the same command. A slice that is not READY is given back, with the request that brought
# it, and asked for anew; install.sh is repeated until it succeeded. Exit code 0 ends the watch; 75 (interrupted and saved) and a slice
# that went away start again after --pause_seconds; any other failure counts, and so does a slice that cannot be had or looked at. --max_failures in a
# row end the watch with the last one's code: the fault is not the machine's.
# shellcheck source=../options.sh
source "$(dirname "${BASH_SOURCE[0]}")/../options.sh"
name=-
zone=-
type=-
image=-
chip=-
cache_dir=
spot=true
prepare=
max_failures=3
pause_seconds=30
option name "of the TPU"
option zone "where, e.g. us-west4-a"
option type "accelerator type, e.g. v5litepod-256"
option image "runtime version, e.g. v2-alpha-tpuv5-lite"
option chip "one of launch/xla_flags, e.g. tpu_v5e"
option cache_dir "as of run_all.sh: a slice made again finds its compiled programs there"
option spot "false: a slice that is not taken away"
option prepare "command that each machine runs before every installation, e.g. 'mountpoint -q /mnt || sudo mount ...' (install.sh)"
option max_failures "failures in a row after which to give up"
option pause_seconds "before starting again"
parse "$@"
if [ ${#REST[@]} -eq 0 ]; then fail "a command must follow --, e.g. -- -m ebt_jax.train --config=..."; fi

folder="$REPOSITORY/launch/tpu_vm"
where=(--name="$name" --zone="$zone")
make=("$folder/queued_resource.sh" "${where[@]}" --type="$type" --image="$image" --spot="$spot" --prepare="$prepare")
install=("$folder/install.sh" "${where[@]}" --prepare="$prepare")
train=("$folder/run_all.sh" "${where[@]}" --chip="$chip" --cache_dir="$cache_dir" -- "${REST[@]}")
if $DRY_RUN; then
    run "${make[@]}"
    run "${train[@]}"
    run "$folder/teardown.sh" "${where[@]}"
    exit 0
fi

errors=$(mktemp)
trap 'rm -f "$errors"' EXIT

# Only a slice that is said to be absent is: what cannot be looked at may be training.
state() {
    if gcloud compute tpus tpu-vm describe "$name" --zone="$zone" --format='value(state)' 2>"$errors"; then return; fi
    if grep -qi 'not.found' "$errors"; then echo ABSENT; else echo UNKNOWN; fi
}

failures=0
installed=true # what was READY before was somebody's doing; exit code 127 tells otherwise
while true; do
    code=0
    started=false
    found=$(state)
    if [ "$found" = UNKNOWN ]; then
        code=1
        cat "$errors" >&2
    elif [ "$found" != READY ]; then
        echo "slice is $found: making it again"
        installed=false
        run "$folder/teardown.sh" "${where[@]}" || echo "nothing was given back"
        if run "${make[@]}"; then installed=true; else code=$?; fi
    elif ! $installed; then
        if run "${install[@]}"; then installed=true; else code=$?; fi
    fi
    if [ "$code" = 0 ]; then
        started=true
        run "${train[@]}" || code=$?
        if [ "$code" = 0 ]; then
            echo "done"
            exit 0
        fi
        if [ "$code" = 127 ]; then installed=false; fi
    fi
    if [ "$code" = 75 ] || { $started && [ "$(state)" != READY ]; }; then
        failures=0
    else
        failures=$((failures + 1))
        if [ "$failures" -ge "$max_failures" ]; then
            echo "error: $failures failures in a row, the last with exit code $code: giving up" >&2
            exit "$code"
        fi
    fi
    echo "exit code $code: starting again in $pause_seconds s"
    sleep "$pause_seconds"
done
