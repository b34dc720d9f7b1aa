#!/usr/bin/env bash
# Gives a slice back, and the request that brought it.
#
#   launch/tpu_vm/teardown.sh --name=pod --zone=us-west4-a
# shellcheck source=../options.sh
source "$(dirname "${BASH_SOURCE[0]}")/../options.sh"
name=-
zone=-
option name "of the TPU"
option zone "where it is"
parse "$@"

if $DRY_RUN || gcloud compute tpus queued-resources describe "$name-request" --zone="$zone" >/dev/null 2>&1; then
    run gcloud compute tpus queued-resources delete "$name-request" --zone="$zone" --force --quiet
else
    run gcloud compute tpus tpu-vm delete "$name" --zone="$zone" --quiet
fi
