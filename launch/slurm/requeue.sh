# Sourced by the batch scripts: train FLAGS... runs ebt_jax.train in every task, and puts the job back into the queue where it was interrupted.
#
# Slurm signals this shell (USR1 before the time limit, TERM on preemption); it passes TERM on to the processes, which save the same step and end
# with 75. EBT_CHIP picks launch/xla_flags, EBT_PYTHON the interpreter.

set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
# shellcheck source=../env.sh
source launch/env.sh "${EBT_CHIP:-gpu_h100}"

train() {
    local code=0 child=""
    # Before srun starts: until there is a trap, a signal ends this shell and leaves nobody to save.
    trap 'echo "interrupted: saving"; scancel --signal=TERM "${SLURM_JOB_ID}.0" || kill -TERM "$child"' USR1 TERM
    # From 22.05 on srun does not take over --cpus-per-task from the job: a task would have one core.
    srun --kill-on-bad-exit=0 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" "${EBT_PYTHON:-.venv/bin/python}" -m ebt_jax.train "$@" &
    child=$!
    # wait also returns when a signal was handled, with that signal's number: the processes are still saving then, or have just ended.
    while kill -0 "$child" 2>/dev/null; do wait "$child" || true; done
    wait "$child" || code=$?
    if [ "$code" = 75 ]; then
        scontrol requeue "$SLURM_JOB_ID"
    fi
    exit "$code"
}
