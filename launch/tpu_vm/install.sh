#!/usr/bin/env bash
# Copies the last commit of this checkout to all machines of a slice and installs it there, with the versions of requirements.lock. Where that succeeded,
# it leaves ~/ebt_jax/.installed, which run_here.sh looks for.
#
#   launch/tpu_vm/install.sh --name=pod --zone=us-west4-a
# shellcheck source=../options.sh
source "$(dirname "${BASH_SOURCE[0]}")/../options.sh"
name=-
zone=-
python=python3.11
prepare=
option name "of the TPU"
option zone "where it is"
option python "on the machines; requirements.lock was tested with 3.11"
option prepare "command that each machine runs before every installation, e.g. 'mountpoint -q /mnt || sudo mount ...'"
parse "$@"

changed="$(git -C "$REPOSITORY" status --porcelain)"
if [ -n "$changed" ]; then
    echo "warning: what is sent is the last commit, without these changes:" >&2
    echo "$changed" >&2
fi
archive=ebt_jax.tar.gz
run git -C "$REPOSITORY" archive --format=tar.gz --output="$REPOSITORY/$archive" HEAD
run gcloud compute tpus tpu-vm scp "$REPOSITORY/$archive" "$name:$archive" --zone="$zone" --worker=all
setup="set -e; ${prepare:+$prepare; }rm -rf ~/ebt_jax; mkdir ~/ebt_jax; tar -xzf ~/$archive -C ~/ebt_jax; cd ~/ebt_jax; make setup PYTHON=$python; "
setup+=".venv/bin/python -m pip install --quiet --constraint <(.venv/bin/python -m pip freeze --exclude-editable) -e '.[tpu,gcs]'; "
setup+="touch .installed"
run gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$setup"
