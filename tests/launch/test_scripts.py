"""Launch scripts: what they would run, word for word; what they do when machines go away; that shells and clusters can read them.

The golden files are written anew by  EBT_JAX_GOLDEN=write pytest tests/launch  and read before they are committed.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import pytest
import yaml
from fakes import Fakes

ROOT = pathlib.Path(__file__).parents[2]
GOLDEN = pathlib.Path(__file__).parent / "golden"
BIN = pathlib.Path(sys.executable).parent
TPU = ("--accelerator=tpu-v5-lite-podslice", "--topology=16x16", "--chip=tpu_v5e", "--hosts=64")
GPU = ("--accelerator=nvidia-h100-80gb", "--chip=gpu_h100", "--hosts=8", "--chips_per_host=8")
XPK = ("--cluster=c", "--name=oxe", "--image=registry/ebt_jax:1", "--type=v5litepod-256", "--chip=tpu_v5e")
TRAIN = ("--", "-m", "ebt_jax.train", "--config=configs/oxe.py", "--config.data.data_dir=/data", "--workdir=/runs/oxe")
PLACE = ("--name=pod", "--zone=us-west4-a")
SLICE = (*PLACE, "--type=v5litepod-256", "--image=v2-alpha-tpuv5-lite")
GKE = ("--name=oxe", "--image=registry/ebt_jax:1", "--data_bucket=oxe", "--runs_bucket=runs")

DRY = {
    "tpu_vm_create": ("tpu_vm/create.sh", *SLICE, "--spot=true"),
    "tpu_vm_install": ("tpu_vm/install.sh", *PLACE, "--prepare=mountpoint -q /mnt || sudo mount nfs:/vol /mnt"),
    "tpu_vm_queued_resource": ("tpu_vm/queued_resource.sh", *SLICE),
    "tpu_vm_run_all": ("tpu_vm/run_all.sh", *PLACE, "--chip=tpu_v5e", *TRAIN, '--config.data.mixture={"a": 1}'),
    "tpu_vm_run_here": ("tpu_vm/run_here.sh", "--chip=tpu_v5e", *TRAIN),
    "tpu_vm_babysit": ("tpu_vm/babysit.sh", *SLICE, "--chip=tpu_v5e", *TRAIN),
    "tpu_vm_teardown": ("tpu_vm/teardown.sh", *PLACE),
    "gke_xpk": ("gke/xpk.sh", *XPK, "--storage=oxe,runs", *TRAIN),
    "gke_train_tpu": ("gke/submit.sh", "--manifest=train_tpu", *GKE, *TPU, *TRAIN),
    "gke_train_gpu": ("gke/submit.sh", "--manifest=train_gpu", *GKE, *GPU, *TRAIN),
    "gke_evaluate": ("gke/submit.sh", "--manifest=evaluate", *GKE, "--hosts=16", "--", "--policy=/runs/artifact", "--suite=metaworld"),
}
SCRIPTS = sorted({ROOT / "launch" / words[0] for words in DRY.values()})
BATCH = sorted((ROOT / "launch/slurm").glob("*.sbatch"))
SOURCED = [*(ROOT / "launch" / name for name in ("options.sh", "env.sh", "slurm/requeue.sh")), *(ROOT / "launch/xla_flags").glob("*.env")]


def shell(*words, **environment):
    command = ["bash", str(ROOT / "launch" / words[0]), *words[1:]]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, cwd=ROOT, timeout=120)


def check_golden(name, found):
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("EBT_JAX_GOLDEN") == "write":
        path.write_text(found)
    assert found == path.read_text()


@pytest.mark.parametrize("name", DRY)
def test_a_dry_run_prints_what_would_be_run(name):
    script, *words = DRY[name]
    done = shell(script, "--dry_run", *words)
    assert done.returncode == 0, done.stderr
    check_golden(name, done.stdout.replace(str(ROOT), "REPOSITORY"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_options_are_explained_and_checked(script):
    name = str(script.relative_to(ROOT / "launch"))
    told = shell(name, "--help")
    assert told.returncode == 0
    assert "(required)" in told.stdout
    assert "--dry_run" in told.stdout
    assert "shellcheck" not in told.stdout
    missing, unknown, word = shell(name), shell(name, "--colour=red"), shell(name, "red")
    assert (missing.returncode, unknown.returncode, word.returncode) == (2, 2, 2)
    assert re.search(r"error: --\w+ must be given: ", missing.stderr)
    assert "options must be among" in unknown.stderr
    assert "options must look like --name=value, got 'red'" in word.stderr


def test_every_script_is_tested():
    runnable = {path for path in (ROOT / "launch").rglob("*.sh") if os.access(path, os.X_OK)}
    assert runnable == set(SCRIPTS)


@pytest.mark.parametrize("path", [*SCRIPTS, *BATCH, *sorted(SOURCED)], ids=lambda path: path.name)
def test_shellcheck_finds_nothing(path):
    done = subprocess.run([BIN / "shellcheck", "--shell=bash", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    if path.suffix != ".env" and path.name != "env.sh":
        text = path.read_text()
        assert "set -euo pipefail" in text or "options.sh" in text or "requeue.sh" in text


def job_of(text):
    """The Job in a manifest: itself, or the template of a JobSet, whose own schema is not published for validation."""
    manifest = yaml.safe_load(text)
    if manifest["kind"] == "Job":
        return manifest
    (replicated,) = manifest["spec"]["replicatedJobs"]
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": manifest["metadata"], "spec": replicated["template"]["spec"]}


@pytest.mark.parametrize("name", [name for name in DRY if name.startswith("gke_") and "xpk" not in name])
def test_manifests_are_what_kubernetes_reads(name, tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job_of((GOLDEN / f"{name}.txt").read_text())))
    done = subprocess.run([BIN / "kubernetes-validate", "--strict", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


def test_a_word_that_yaml_would_read_otherwise_is_refused():
    done = shell("gke/submit.sh", "--manifest=evaluate", *GKE, "--", "--policy=$(reboot)")
    assert done.returncode == 2
    assert "words of the command must need no quotes" in done.stderr


def test_a_workload_of_xpk_that_has_nothing_mounted_ends_for_good(tmp_path):
    """A run without its data fails as often as it is started; one whose workdir is each container's own disk loses it."""
    fakes = Fakes(tmp_path / "bin", "xpk")
    words = ("--", "-m", "ebt_jax.train", f"--config.data.data_dir={tmp_path}/not here", "--workdir=/runs/oxe")
    assert shell("gke/xpk.sh", *XPK, *words, PATH=f"{fakes.folder}:{os.environ['PATH']}").returncode == 0
    (call,) = fakes.calls("workload create")
    assert not [word for word in call if word.startswith("--storage")]
    (again,) = (word.partition("=")[2].split(",") for word in call if word.startswith("--restart-on-exit-codes="))
    done = subprocess.run(["bash", "-c", call[-1].removeprefix("--command=")], capture_output=True, text=True)
    assert done.returncode == 2
    assert "2" not in again
    assert "not here" in done.stderr
    assert "error: storages must be mounted there" in done.stderr


@pytest.fixture
def gcloud(tmp_path):
    """A cloud whose slice has two machines."""
    fakes = Fakes(tmp_path / "bin", "gcloud", "git")
    fakes.answer("tpu-vm describe", "networkEndpoints", say="2")
    return fakes


def cloud(gcloud, script, *words):
    return shell(script, *words, PATH=f"{gcloud.folder}:{os.environ['PATH']}")


def babysit(gcloud, *extra):
    return cloud(gcloud, "tpu_vm/babysit.sh", *SLICE, "--chip=tpu_v5e", "--pause_seconds=0", *extra, *TRAIN)


def run_all(gcloud):
    return cloud(gcloud, "tpu_vm/run_all.sh", *PLACE, "--chip=tpu_v5e", *TRAIN)


def named(*codes):
    return "\n".join(f"t1v-n-{i}: exit code {code}" for i, code in enumerate(codes))


def exits(gcloud, *codes):
    """What training ends with, time after time."""
    for code in codes:
        gcloud.answer("tpu-vm ssh", "ebt_jax.train", say=f"worker 0\n{named(code, code)}", times=1)


def in_order(gcloud):
    """What was done to the slice and its machines."""
    known = {("create",): "ask", ("delete",): "give back", ("ssh", "make setup"): "install", ("ssh", "ebt_jax.train"): "train"}
    return [known[part] for words in gcloud.calls() for part in known if all(word in " ".join(words[4:]) for word in part)]


ABSENT = "ERROR: (gcloud.compute.tpus.tpu-vm.describe) NOT_FOUND: Resource 'pod' was not found"


@pytest.mark.parametrize("gone", ["PREEMPTED", ABSENT])
def test_a_slice_that_goes_away_is_made_again_and_training_goes_on(gcloud, gone):
    """Its request stays behind, SUSPENDED, with or without a machine that can be looked at: it is given back before another is made."""
    gcloud.answer("tpu-vm describe", say="READY", times=1)  # there
    exits(gcloud, 1)  # and dies with the slice
    gcloud.answer("tpu-vm describe", say=gone, code=int(gone == ABSENT), times=2)  # seen after the failure, and at the next round
    gcloud.answer("queued-resources describe", say="SUSPENDED", times=1)
    gcloud.answer("queued-resources describe", say="ACTIVE")
    gcloud.answer("tpu-vm describe", say="READY")
    exits(gcloud, 75, 0)
    done = babysit(gcloud)
    assert done.returncode == 0, done.stdout + done.stderr
    assert in_order(gcloud) == ["train", "give back", "ask", "install", "train", "train"]
    assert done.stdout.count("starting again") == 2


def test_a_slice_that_cannot_be_looked_at_is_left_alone(gcloud):
    """What the network or a login hides may be training."""
    gcloud.answer("tpu-vm describe", say="ERROR: there was a problem refreshing your current auth tokens", code=1, times=2)
    gcloud.answer("tpu-vm describe", say="READY")
    exits(gcloud, 0)
    assert babysit(gcloud).returncode == 0
    assert in_order(gcloud) == ["train"]


def test_what_is_not_installed_is_installed_until_it_is(gcloud):
    gcloud.answer("tpu-vm describe", say="READY")
    exits(gcloud, 127)
    gcloud.answer("tpu-vm ssh", "make setup", code=1, times=1)
    exits(gcloud, 0)
    assert babysit(gcloud).returncode == 0
    assert in_order(gcloud) == ["train", "install", "install", "train"]


def test_a_run_that_keeps_failing_is_given_up(gcloud):
    gcloud.answer("tpu-vm describe", say="READY")
    exits(gcloud, 1, 75, 1, 1, 1)
    done = babysit(gcloud)
    assert done.returncode == 1
    assert len(gcloud.calls("tpu-vm ssh", "ebt_jax.train")) == 5  # 75 is no failure and starts the count anew
    assert "3 failures in a row, the last with exit code 1: giving up" in done.stderr


def test_a_slice_that_cannot_be_had_is_given_up(gcloud):
    gcloud.answer("tpu-vm describe", say=ABSENT, code=1)
    gcloud.answer("queued-resources create", code=1)
    done = babysit(gcloud, "--max_failures=2")
    assert done.returncode == 1
    assert len(gcloud.calls("queued-resources create")) == 2
    assert not gcloud.calls("tpu-vm ssh")


@pytest.mark.parametrize("name", ["tpu_vm/install.sh", "gke/Dockerfile", "sky/train.yaml"])
def test_machines_that_may_read_a_bucket_are_given_what_reads_it(name):
    """Whatever is put beside an installation by hand does not come back with the next machine."""
    (extras,) = re.findall(r"-e [\"']\.\[(.*)\]", (ROOT / "launch" / name).read_text())
    assert "gcs" in extras.split(",")


def test_the_preparation_on_the_page_reaches_every_machine_as_it_stands(gcloud):
    """Lines, quotes and all: a shell reads what is sent, and runs the preparation before anything is installed."""
    (prepare,) = re.findall(r"<<'END'\n(.*?)\nEND\n", (ROOT / "launch/README.md").read_text(), re.DOTALL)
    assert cloud(gcloud, "tpu_vm/install.sh", *PLACE, f"--prepare={prepare}").returncode == 0
    (call,) = gcloud.calls("tpu-vm ssh")
    sent = call[-1].removeprefix("--command=")
    assert sent.startswith(f"set -e; {prepare}; rm -rf ~/ebt_jax; ")
    done = subprocess.run(["bash", "-n", "-c", sent], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("state", "installed"), [("ACTIVE", 1), ("FAILED", 0)])
def test_a_request_is_waited_for_until_it_is_decided(gcloud, state, installed):
    """A look that fails decides nothing."""
    gcloud.answer("queued-resources describe", say="WAITING_FOR_RESOURCES", times=1)
    gcloud.answer("queued-resources describe", code=1, times=1)
    gcloud.answer("queued-resources describe", say=state)
    done = cloud(gcloud, "tpu_vm/queued_resource.sh", *SLICE, "--poll_seconds=0")
    assert done.returncode == 1 - installed
    assert len(gcloud.calls("queued-resources describe")) == 3
    assert len(gcloud.calls("tpu-vm ssh", "make setup")) == installed


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (named(0, 0), 0),
        (named(0, 75), 75),
        (named(1, 0), 1),
        (named(0), 1),  # the other one's ssh ended before it could say
        (named("", ""), 1),
    ],
)
def test_the_exit_code_of_many_machines_is_the_first_that_is_not_0(gcloud, said, expected):
    gcloud.answer("tpu-vm ssh", say=said)
    assert run_all(gcloud).returncode == expected


def test_machines_that_cannot_be_reached_are_a_failure(gcloud):
    gcloud.answer("tpu-vm ssh", say="ssh: no route", code=255)
    assert run_all(gcloud).returncode == 1


@pytest.fixture
def machine(tmp_path):
    """Runs, on this machine as if it were one of a slice, what run_all.sh gives to ssh. "python" is a shell there."""
    gcloud = Fakes(tmp_path / "bin", "gcloud")
    gcloud.answer("networkEndpoints", say="1")
    gcloud.answer("ssh", say=named(0))
    home = tmp_path / "home"
    (home / "ebt_jax/.venv/bin").mkdir(parents=True)
    shutil.copytree(ROOT / "launch", home / "ebt_jax/launch")
    (home / "ebt_jax/.venv/bin/python").symlink_to("/bin/bash")
    (home / "ebt_jax/.installed").touch()

    def start(chip, *words):
        cloud(gcloud, "tpu_vm/run_all.sh", *PLACE, f"--chip={chip}", f"--cache_dir={tmp_path}/compiled programs", "--", *words)
        remote = gcloud.calls("ssh")[-1][-1].removeprefix("--command=")
        environment = {**os.environ, "HOME": str(home)}
        return subprocess.Popen(["bash", "-c", remote], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    return home, start


def test_every_machine_names_its_exit_code(machine):
    home, start = machine
    out, _ = start("cpu", "-c", 'echo "$0 $JAX_PLATFORMS $JAX_COMPILATION_CACHE_DIR"; exit 75', "two words").communicate(timeout=60)
    assert "two words cpu " in out
    assert "/compiled programs\n" in out
    assert out.endswith(": exit code 75\n")
    out, _ = start("tpu_v9", "-c", "true").communicate(timeout=60)
    assert "chip must be one of" in out
    assert out.endswith(": exit code 2\n")
    (home / "ebt_jax/.installed").unlink()
    out, _ = start("cpu", "-c", "true").communicate(timeout=60)
    assert "Run launch/tpu_vm/install.sh" in out
    assert out.endswith(": exit code 127\n")
    shutil.rmtree(home / "ebt_jax")
    assert start("cpu", "-c", "true").communicate(timeout=60)[0].endswith(": exit code 127\n")


def test_an_earlier_command_ends_before_the_next_one_starts(machine, tmp_path):
    _, start = machine
    ready, saved = tmp_path / "ready", tmp_path / "saved"
    first = start("cpu", "-c", f"trap 'sleep 0.3; touch {saved}; exit 75' TERM; touch {ready}; while true; do sleep 0.05; done")
    while not ready.exists():
        assert first.poll() is None
        time.sleep(0.02)
    out, _ = start("cpu", "-c", f"ls {saved}").communicate(timeout=60)
    assert "ending an earlier command" in out
    assert out.endswith(": exit code 0\n")
    assert first.communicate(timeout=60)[0].endswith(": exit code 75\n")


@pytest.fixture
def slurm(tmp_path):
    """A submit folder with fake Slurm commands."""
    fakes = Fakes(tmp_path / "bin", "scontrol", "scancel")
    folder = tmp_path / "submit"
    shutil.copytree(ROOT / "launch", folder / "launch")
    return fakes, folder


def batch(slurm, srun, script="train_per_gpu.sbatch"):
    fakes, folder = slurm
    (fakes.folder / "srun").write_text(f"#!/usr/bin/env bash\n{srun}\n")
    (fakes.folder / "srun").chmod(0o755)
    (cores,) = re.findall(r"^#SBATCH --cpus-per-task=(\d+)$", (ROOT / "launch/slurm" / script).read_text(), re.MULTILINE)
    names = {"SLURM_JOB_ID": "7", "SLURM_SUBMIT_DIR": str(folder), "EBT_CHIP": "cpu", "SLURM_CPUS_PER_TASK": cores}
    environment = {**os.environ, **names, "PATH": f"{fakes.folder}:{os.environ['PATH']}"}
    command = ["bash", folder / "launch/slurm" / script, "--workdir=/runs/oxe"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("code", "restarts", "requeued"), [(0, "0", 0), (75, "0", 1), (75, "9", 1), (1, "2", 1), (1, "3", 0), (137, "0", 1), (2, "0", 0)]
)
def test_an_interrupted_job_goes_back_into_the_queue_and_a_failed_one_three_times(slurm, code, restarts, requeued, monkeypatch):
    monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
    assert batch(slurm, f"exit {code}").wait(120) == code
    assert len(slurm[0].calls("scontrol", "requeue 7")) == requeued


def test_a_job_that_slurm_signals_saves_first(slurm, tmp_path):
    """USR1 comes to the batch shell; scancel, which a busy controller refuses at first, gives the processes TERM; the shell waits for them.

    TERM to srun itself would kill them: this one notes it.
    """
    ready, saved, killed = (tmp_path / name for name in ("ready", "saved", "killed"))
    fakes, _ = slurm
    fakes.answer("scancel", say="Socket timed out", code=1, times=2)
    (fakes.folder / "scancel").rename(fakes.folder / "asked")
    task = f"trap 'sleep 0.5; touch {saved}; exit 75' TERM; touch {ready}; while true; do sleep 0.05; done"
    (tmp_path / "task").write_text(task)
    (fakes.folder / "scancel").write_text(f'#!/usr/bin/env bash\n{fakes.folder}/asked "$@" && kill -TERM "$(cat {tmp_path}/pid)"\n')
    (fakes.folder / "scancel").chmod(0o755)
    process = batch(slurm, f"trap 'touch {killed}' TERM; bash {tmp_path}/task & echo $! > {tmp_path}/pid; wait $!")
    while not ready.exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(10)  # SIGUSR1
    assert process.wait(120) == 75
    assert saved.exists()
    assert not killed.exists()
    assert len(slurm[0].calls("scancel", "--signal=TERM 7.0")) == 3
    assert slurm[0].calls("scontrol", "requeue 7")


def test_a_job_whose_processes_end_while_they_are_signalled_goes_back_too(slurm):
    """scancel may take longer than the save: the shell then hears of its own signal first."""
    fakes, folder = slurm
    (fakes.folder / "scancel").write_text(f"#!/usr/bin/env bash\ntouch {folder}/cancelled; sleep 0.5\n")
    process = batch(slurm, f"touch {folder}/ready; until [ -e {folder}/cancelled ]; do sleep 0.02; done; exit 75")
    while not (folder / "ready").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(10)  # SIGUSR1
    assert process.wait(120) == 75
    assert fakes.calls("scontrol", "requeue 7")


@pytest.mark.parametrize("script", ["train_per_gpu.sbatch", "train_per_node.sbatch"])
def test_batch_scripts_hand_their_flags_to_training(slurm, script, tmp_path):
    """sbatch has no dry run: what its scripts ask srun for instead."""
    assert batch(slurm, f'echo "srun $*" > {tmp_path}/said', script).wait(120) == 0
    check_golden(f"slurm_{script.removesuffix('.sbatch')}", (tmp_path / "said").read_text())


def stand_in(folder):
    """A checkout whose Python says what it was asked to run."""
    python = folder / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/usr/bin/env bash\nenv | grep "^EBT_JAX\\|^JAX_\\(COO\\|NUM\\|PRO\\|PLA\\)" | sort || true\necho "python $*"\n')
    python.chmod(0o755)
    return {"PATH": os.environ["PATH"], "HOME": str(folder)}


def test_workers_of_a_farm_write_where_the_merge_looks(slurm):
    """Every task of the array: its own share, one folder for all, as `evaluate --merge` reads it."""
    _, folder = slurm
    environment = {**stand_in(folder), "SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "16", "SLURM_SUBMIT_DIR": str(folder)}
    command = ["bash", folder / "launch/slurm/evaluate.sbatch", "OUT", "--policy=artifact"]
    check_golden("slurm_evaluate", subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60).stdout)
    again = {**environment, "SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_COUNT": "1", "EBT_WORKERS": "16"}
    assert "--worker=5/16 " in subprocess.run(command, env=again, capture_output=True, text=True, timeout=60).stdout
    manifest = (GOLDEN / "gke_evaluate.txt").read_text()
    assert "--worker=$JOB_COMPLETION_INDEX/16 --output=/runs/evaluation/oxe\n" in manifest
    assert "--merge --output=/runs/evaluation/oxe\n" in manifest


def test_nodes_of_a_sky_job_find_each_other(slurm):
    """SkyPilot's dry run needs a cloud: what the second of two nodes runs instead."""
    _, folder = slurm
    task = yaml.safe_load((ROOT / "launch/sky/train.yaml").read_text())
    sky = {"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_RANK": "1", "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2"}
    environment = {**stand_in(folder), **task["envs"], **sky}
    done = subprocess.run(["bash", "-c", task["run"]], cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    check_golden("sky_train", done.stdout)


def test_an_unknown_chip_is_refused():
    done = subprocess.run(["bash", "-c", "source launch/env.sh tpu_v9"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert "chip must be one of cpu gpu_h100 tpu_v5e tpu_v5p tpu_v6e , got tpu_v9" in done.stderr


def test_this_jaxlib_knows_every_gpu_flag():
    """XLA ends the process at an unknown flag; a CPU build reads the GPU's flags too. Those of comments are options, and known as well."""
    script = """
        source <(sed "s/# --/--/" launch/xla_flags/gpu_h100.env)
        [[ $XLA_FLAGS == *deterministic_ops=true* ]] && JAX_PLATFORMS=cpu exec "$0" -c "import jax; jax.devices()"
    """
    done = subprocess.run(["bash", "-c", script, sys.executable], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [sys.executable, "-c", "import jax; jax.devices()"],
        env={**os.environ, "XLA_FLAGS": "--xla_gpu_no_such_flag=1"},
        capture_output=True,
    )
    assert done.returncode != 0
