#!/usr/bin/env bash
# The same run through xpk, for clusters that it made.
#
#   launch/gke/xpk.sh --cluster=pods --name=oxe --image=REGISTRY/ebt_jax:1 --type=v5litepod-256 --chip=tpu_v5e -- \
#       -m ebt_jax.train --config=configs/oxe.py --config.data.data_dir=/data --workdir=/runs/oxe
# shellcheck source=../options.sh
source "$(dirname "${BASH_SOURCE[0]}")/../options.sh"
cluster=-
name=-
image=-
type=-
chip=-
max_restarts=50
option cluster "made by xpk cluster create"
option name "of the workload"
option image "container image with this checkout"
option type "e.g. v5litepod-256"
option chip "one of launch/xla_flags"
option max_restarts "xpk's own default is 0: the first preemption would end the run"
parse "$@"
if [ ${#REST[@]} -eq 0 ]; then fail "a command must follow --, e.g. -- -m ebt_jax.train --config=..."; fi

run xpk workload create --cluster="$cluster" --workload="$name" --docker-image="$image" --tpu-type="$type" --max-restarts="$max_restarts" \
    --restart-on-exit-codes=1,75 --command="cd /ebt_jax && source launch/env.sh $chip && exec python$(quoted_rest)"
