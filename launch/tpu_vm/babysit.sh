#!/usr/bin/env bash
# Keeps a run going on a slice that may be taken away: makes it again, installs, starts the same command, until it is done.
#
#   launch/tpu_vm/babysit.sh --name=pod --zone=us-west4-a --type=v5litepod-256 --image=v2-alpha-tpuv5-lite --chip=tpu_v5e -- \
#       -m ebt_jax.train --config=configs/oxe.py --config.data.data_dir=/mnt/oxe --workdir=/mnt/runs/oxe
#
# Training resumes by itself, so a restart is the same command. Exit code 0 ends the watch; 75 (interrupted and saved) and a slice
# that went away start again at once; any other failure counts, and so does a slice that cannot be had. --max_failures in a row
# end the watch with the last one's code: the fault is not the machine's.
# shellcheck source=../options.sh
source "$(dirname "${BASH_SOURCE[0]}")/../options.sh"
name=-
zone=-
type=-
image=-
chip=-
spot=true
max_failures=3
pause_seconds=30
option name "of the TPU"
option zone "where, e.g. us-west4-a"
option type "accelerator type, e.g. v5litepod-256"
option image "runtime version, e.g. v2-alpha-tpuv5-lite"
option chip "one of launch/xla_flags, e.g. tpu_v5e"
option spot "false: a slice that is not taken away"
option max_failures "failures in a row after which to give up"
option pause_seconds "before starting again"
parse "$@"
if [ ${#REST[@]} -eq 0 ]; then fail "a command must follow --, e.g. -- -m ebt_jax.train --config=..."; fi

folder="$REPOSITORY/launch/tpu_vm"
where=(--name="$name" --zone="$zone")
make=("$folder/queued_resource.sh" "${where[@]}" --type="$type" --image="$image" --spot="$spot")
train=("$folder/run_all.sh" "${where[@]}" --chip="$chip" -- "${REST[@]}")
if $DRY_RUN; then
    run "${make[@]}"
    run "${train[@]}"
    run "$folder/teardown.sh" "${where[@]}"
    exit 0
fi

state() { gcloud compute tpus tpu-vm describe "$name" --zone="$zone" --format='value(state)' 2>/dev/null || echo ABSENT; }

failures=0
while true; do
    code=0
    made=true
    found=$(state)
    if [ "$found" != READY ]; then
        echo "slice is $found: making it again"
        if [ "$found" != ABSENT ]; then run "$folder/teardown.sh" "${where[@]}" || true; fi
        run "${make[@]}" || { code=$?; made=false; }
    fi
    if $made; then run "${train[@]}" || code=$?; fi
    if [ "$code" = 0 ]; then
        echo "done"
        exit 0
    fi
    if [ "$code" = 75 ] || { $made && [ "$(state)" != READY ]; }; then
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
