#!/usr/bin/env bash
# Asks for a slice and waits until it is given, then installs this checkout on it.
#
#   launch/tpu_vm/queued_resource.sh --name=pod --zone=us-west4-a --type=v5litepod-256 --image=v2-alpha-tpuv5-lite --spot=true
# shellcheck source=../options.sh
source "$(dirname "${BASH_SOURCE[0]}")/../options.sh"
name=-
zone=-
type=-
image=-
spot=false
prepare=
poll_seconds=30
option name "of the TPU; the request is called NAME-request"
option zone "where, e.g. us-west4-a"
option type "accelerator type, e.g. v5litepod-256"
option image "runtime version, e.g. v2-alpha-tpuv5-lite"
option spot "true: cheaper, and may be taken away at any time"
option prepare "command that each machine runs before every installation, e.g. 'mountpoint -q /mnt || sudo mount ...' (install.sh)"
option poll_seconds "between two looks"
parse "$@"

spot_flag=()
if [ "$spot" = true ]; then spot_flag=(--spot); fi
run gcloud compute tpus queued-resources create "$name-request" --node-id="$name" --zone="$zone" --accelerator-type="$type" \
    --runtime-version="$image" "${spot_flag[@]}"
describe=(gcloud compute tpus queued-resources describe "$name-request" --zone="$zone" "--format=value(state.state)")
if $DRY_RUN; then
    run "${describe[@]}"
else
    unseen=0 # looks in a row that failed
    while true; do
        if state=$("${describe[@]}"); then unseen=0; else state=UNKNOWN unseen=$((unseen + 1)); fi
        if [ "$state" = ACTIVE ]; then break; fi
        if [ "$unseen" -ge 10 ] || [[ "$state" =~ ^(FAILED|SUSPENDED|SUSPENDING|DELETING)$ ]]; then
            echo "error: the request must become ACTIVE, got $state. Run launch/tpu_vm/teardown.sh and ask again" >&2
            exit 1
        fi
        echo "waiting: $state"
        sleep "$poll_seconds"
    done
fi
run "$REPOSITORY/launch/tpu_vm/install.sh" --name="$name" --zone="$zone" --prepare="$prepare"
