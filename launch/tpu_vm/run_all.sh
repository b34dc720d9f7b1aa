#!/usr/bin/env bash
# Runs one command on all machines of a slice at once: training, the preflight, anything.
#
#   launch/tpu_vm/run_all.sh --name=pod --zone=us-west4-a --chip=tpu_v5e -- \
#       -m ebt_jax.train --config=configs/oxe.py --config.data.data_dir=/mnt/oxe --workdir=/mnt/runs/oxe
#
# What follows -- goes to Python. --workdir must be a folder that all machines share (Filestore, or a bucket with hierarchical
# namespace through gcsfuse: a checkpoint is finished by renaming a folder, which other buckets do piece by piece). The machines find each
# other by themselves. The last line of each names its exit code; this script's own is the first that is not 0.
# shellcheck source=../options.sh
source "$(dirname "${BASH_SOURCE[0]}")/../options.sh"
name=-
zone=-
chip=-
option name "of the TPU"
option zone "where it is"
option chip "one of launch/xla_flags, e.g. tpu_v5e"
parse "$@"
if [ ${#REST[@]} -eq 0 ]; then fail "a command must follow --, e.g. -- -m ebt_jax.train --config=..."; fi

remote="cd ~/ebt_jax && source launch/env.sh $chip && code=0 && { .venv/bin/python$(quoted_rest) || code=\$?; }; echo \"exit code \$code\""
if $DRY_RUN; then
    run gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$remote"
    exit 0
fi
# ssh to many machines has one exit code of its own, so each prints its own.
output=$(mktemp)
trap 'rm -f "$output"' EXIT
run gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$remote" 2>&1 | tee "$output" || exit 1
grep -q 'exit code [0-9]*$' "$output" || exit 1
exit "$(sed -n 's/.*exit code \([0-9]*\)$/\1/p' "$output" | awk '$1 != 0 && !code { code = $1 } END { print code + 0 }')"
