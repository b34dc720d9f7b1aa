#!/usr/bin/env bash
# Makes a TPU slice and installs this checkout on all its machines.
#
#   launch/tpu_vm/create.sh --name=pod --zone=us-west4-a --type=v5litepod-256 --image=v2-alpha-tpuv5-lite
#
# Cheap and soon where chips are free; where they are not, launch/tpu_vm/queued_resource.sh waits for them.
# shellcheck source=../options.sh
source "$(dirname "${BASH_SOURCE[0]}")/../options.sh"
name=-
zone=-
type=-
image=-
spot=false
prepare=
option name "of the TPU"
option zone "where, e.g. us-west4-a"
option type "accelerator type, e.g. v5litepod-256, v5p-1024, v6e-256"
option image "runtime version, e.g. v2-alpha-tpuv5-lite, v2-alpha-tpuv5, v2-alpha-tpuv6e"
option spot "true: cheaper, and may be taken away at any time"
option prepare "command that each machine runs before every installation, e.g. 'mountpoint -q /mnt || sudo mount ...' (install.sh)"
parse "$@"

spot_flag=()
if [ "$spot" = true ]; then spot_flag=(--spot); fi
run gcloud compute tpus tpu-vm create "$name" --zone="$zone" --accelerator-type="$type" --version="$image" "${spot_flag[@]}"
run "$REPOSITORY/launch/tpu_vm/install.sh" --name="$name" --zone="$zone" --prepare="$prepare"
