#!/usr/bin/env bash
# Fills in a manifest of this folder and gives it to the cluster that kubectl is set to.
#
#   launch/gke/submit.sh --manifest=train_tpu --name=oxe --image=REGISTRY/ebt_jax:1 --data_bucket=oxe --runs_bucket=runs \
#       --accelerator=tpu-v5-lite-podslice --topology=16x16 --chip=tpu_v5e --hosts=64 --chips_per_host=4 -- \
#       -m ebt_jax.train --config=configs/oxe.py --config.data.data_dir=/data --workdir=/runs/oxe
#
# The image holds this checkout at /ebt_jax and its Python environment (launch/gke/Dockerfile). JobSet must be installed in the cluster. A restart is
# the same command, and training resumes by itself. --dry_run prints the manifest.
# shellcheck source=../options.sh
source "$(dirname "${BASH_SOURCE[0]}")/../options.sh"
manifest=-
name=-
image=-
data_bucket=none
runs_bucket=-
service_account=default
accelerator=none
topology=none
chip=cpu
hosts=1
chips_per_host=4
max_restarts=50
option manifest "train_tpu, train_gpu or evaluate"
option name "of the job"
option image "container image with this checkout"
option data_bucket "bucket with the datasets, seen at /data; train_tpu and train_gpu mount it, evaluate has no use for it"
option runs_bucket "bucket for workdirs, seen at /runs"
option service_account "of Kubernetes, allowed to read and write the buckets"
option accelerator "node label: tpu-v5-lite-podslice, tpu-v5p-slice, tpu-v6e-slice, nvidia-h100-80gb"
option topology "node label of TPUs: 16x16"
option chip "one of launch/xla_flags"
option hosts "pods: machines of the slice, nodes, or evaluation workers"
option chips_per_host "TPU chips or GPUs of one"
option max_restarts "of a whole training job"
parse "$@"

file="$REPOSITORY/launch/gke/$manifest.yaml"
if [ ! -f "$file" ]; then fail "--manifest must be train_tpu, train_gpu or evaluate, got '$manifest'"; fi
if [ ${#REST[@]} -eq 0 ]; then fail "a command must follow --, e.g. -- -m ebt_jax.train --config=..."; fi
# The command stands inside a YAML string inside a shell string: only words that need no quoting in either.
for word in "${REST[@]}"; do
    case "$word" in *[!A-Za-z0-9_./:=,@%+-]*) fail "words of the command must need no quotes, got '$word'. Put it into a config file." ;; esac
done
words="${REST[*]}"
export name image data_bucket runs_bucket service_account accelerator topology chip hosts chips_per_host max_restarts words
filled=$(python3 -c 'import os, string, sys; sys.stdout.write(string.Template(sys.stdin.read()).substitute(os.environ))' <"$file")
if $DRY_RUN; then
    printf '%s\n' "$filled"
    exit 0
fi
printf '+ kubectl apply -f - (%s)\n' "$file"
kubectl apply -f - <<<"$filled"
