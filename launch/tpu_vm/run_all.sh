#!/usr/bin/env bash
# Runs one command on all machines of a slice at once: training, the preflight, anything.
#
#   launch/tpu_vm/run_all.sh --name=pod --zone=us-west4-a --chip=tpu_v5e -- -m ebt_jax.train \
#       --config=configs/oxe.py --config.data.data_dir=/mnt/oxe --config.data.cache_dir=/mnt/runs/.cache/index --workdir=/mnt/runs/oxe
#
# What follows -- goes to Python. --workdir must be a folder that all machines share (Filestore, or a bucket with hierarchical
# namespace through gcsfuse: a checkpoint is finished by renaming a folder, which other buckets do piece by piece). The machines find each
# other by themselves. A command that still runs there from before is ended first; training saves then. The last line of each machine names
# its exit code. This script's own is the first of them that is not 0, in the order they came; 1 where a machine could not be reached or
# named none; 127 where install.sh has not succeeded.
# shellcheck source=../options.sh
source "$(dirname "${BASH_SOURCE[0]}")/../options.sh"
name=-
zone=-
chip=-
cache_dir=
option name "of the TPU"
option zone "where it is"
option chip "one of launch/xla_flags, e.g. tpu_v5e"
option cache_dir "folder of compiled programs that all machines share, e.g. /mnt/runs/.cache/xla: a slice made again compiles nothing"
parse "$@"
if [ ${#REST[@]} -eq 0 ]; then fail "a command must follow --, e.g. -- -m ebt_jax.train --config=..."; fi

# ssh to many machines has one exit code of its own, so each prints its own.
here=(--chip="$chip" --cache_dir="$cache_dir" -- "${REST[@]}")
remote="code=0; ~/ebt_jax/launch/tpu_vm/run_here.sh$(printf ' %q' "${here[@]}") || code=\$?; echo \"\$HOSTNAME: exit code \$code\""
count=(gcloud compute tpus tpu-vm describe "$name" --zone="$zone" "--format=value(networkEndpoints.len())")
ssh=(gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$remote")
if $DRY_RUN; then
    run "${count[@]}"
    run "${ssh[@]}"
    exit 0
fi
machines=$("${count[@]}") || exit 1
output=$(mktemp)
trap 'rm -f "$output"' EXIT
run "${ssh[@]}" 2>&1 | tee "$output" || exit 1
codes=$(sed -n 's/.*: exit code \([0-9][0-9]*\)$/\1/p' "$output")
named=$(wc -w <<<"$codes")
if ! { [ "$named" -gt 0 ] && [ "$named" -ge "$machines" ]; }; then
    echo "error: all $machines machines must name their exit codes, got $named" >&2
    exit 1
fi
exit "$(awk '$1 != 0 && !code { code = $1 } END { print code + 0 }' <<<"$codes")"
