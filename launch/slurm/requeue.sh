# Sourced by the batch scripts: train FLAGS... runs ebt_jax.train in every task, and puts the job back into the queue where it was interrupted,
# and where it failed, so long as it was started fewer than EBT_RESTARTS times (3) again.
#
# Slurm signals this shell (USR1 before the time limit, TERM on preemption, which leaves time to save only where the partition has a GraceTime);
# it passes TERM on to the processes, which save the same step and end with 75. EBT_CHIP picks launch/xla_flags, EBT_PYTHON the interpreter.

set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
# shellcheck source=../env.sh
source launch/env.sh "${EBT_CHIP:-gpu_h100}"

# srun answers TERM with SIGKILL to every task: nobody but scancel may pass it on, and the controller may be busy for a while.
interrupt() {
    echo "interrupted: saving"
    until scancel --signal=TERM "${SLURM_JOB_ID}.0" || ! kill -0 "$child" 2>/dev/null; do sleep 1; done
}

train() {
    local code=0 child=""
    # Before srun starts: until there is a trap, a signal ends this shell and leaves nobody to save.
    trap interrupt USR1 TERM
    # From 22.05 on srun does not take over --cpus-per-task from the job: a task would have one core.
    srun --kill-on-bad-exit=0 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" "${EBT_PYTHON:-.venv/bin/python}" -m ebt_jax.train "$@" &
    child=$!
    # wait also returns when a signal was handled, with that signal's number: the processes are still saving then, or have just ended.
    while kill -0 "$child" 2>/dev/null; do wait "$child" || true; done
    wait "$child" || code=$?
    # 2 is wrong usage, which no restart mends; anything else may be a machine's fault.
    if [ "$code" = 75 ] || { [ "$code" != 0 ] && [ "$code" != 2 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt "${EBT_RESTARTS:-3}" ]; }; then
        scontrol requeue "$SLURM_JOB_ID"
    fi
    exit "$code"
}
