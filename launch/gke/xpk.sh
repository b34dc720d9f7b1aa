#!/usr/bin/env bash
# The same run through xpk, for clusters that it made, and with buckets that it mounts:
#
#   xpk storage attach oxe --type=gcsfuse --cluster=pods --bucket=oxe --mount-point=/data --readonly=true --size=1 --auto-mount=false
#   xpk storage attach runs --type=gcsfuse --cluster=pods --bucket=runs --mount-point=/runs --readonly=false --size=1 --auto-mount=false
#   launch/gke/xpk.sh --cluster=pods --name=oxe --image=REGISTRY/ebt_jax:1 --type=v5litepod-256 --chip=tpu_v5e --storage=oxe,runs -- \
#       -m ebt_jax.train --config=configs/oxe.py --config.data.data_dir=/data --workdir=/runs/oxe
#
# /runs needs a hierarchical namespace: a checkpoint is finished by renaming a folder. Compiled programs and the index of the data are kept
# there, too. Where it or the data's folder is not mounted the workload ends with exit code 2, which starts nothing again.
# shellcheck source=../options.sh
source "$(dirname "${BASH_SOURCE[0]}")/../options.sh"
cluster=-
name=-
image=-
type=-
chip=-
storage=
max_restarts=50
option cluster "made by xpk cluster create"
option name "of the workload"
option image "container image with this checkout"
option type "e.g. v5litepod-256"
option chip "one of launch/xla_flags"
option storage "names of attached storages to mount, separated by commas, beside those attached with --auto-mount=true"
option max_restarts "xpk's own default is 0: the first preemption would end the run"
parse "$@"
if [ ${#REST[@]} -eq 0 ]; then fail "a command must follow --, e.g. -- -m ebt_jax.train --config=..."; fi

IFS=, read -ra attached <<<"$storage"
folders=(/runs)
for word in "${REST[@]}"; do
    case "$word" in --config.data.data_dir=/*) folders+=("${word#*=}") ;; esac
done
there="ls -d$(printf ' %q' "${folders[@]}") >/dev/null || { echo 'error: storages must be mounted there: --storage of xpk.sh' >&2; exit 2; }"
run xpk workload create --cluster="$cluster" --workload="$name" --docker-image="$image" --tpu-type="$type" --max-restarts="$max_restarts" \
    --restart-on-exit-codes=1,75 "${attached[@]/#/--storage=}" \
    --env=JAX_COMPILATION_CACHE_DIR=/runs/.cache/xla --env=EBT_JAX_CACHE=/runs/.cache/index \
    --command="$there; cd /ebt_jax && source launch/env.sh $chip && exec python$(quoted_rest)"
