"""Where a process stands, read from the variables that each launcher sets."""

import importlib.util
import threading

import pytest

from ebt_jax import distributed
from ebt_jax.distributed import Cluster, agree_to_stop, find_cluster

SLURM = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_NTASKS": "8", "SLURM_PROCID": "5", "SLURM_LOCALID": "1"}
MPI = {
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}
MPI_NODE = {**MPI, "OMPI_COMM_WORLD_LOCAL_RANK": "0", "OMPI_COMM_WORLD_LOCAL_SIZE": "1", "JAX_COORDINATOR_ADDRESS": "a:1"}


@pytest.mark.parametrize(
    ("environment", "want"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}, None),  # inside sbatch, not started by srun
        ({**SLURM, "SLURM_STEP_NUM_TASKS": "1"}, None),
        (
            {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"},
            Cluster("", "a:1", 2, 1),
        ),
        (SLURM, Cluster("slurm", None, 8, 5, ())),
        # A process a GPU, not bound: LOCALID chooses.
        ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "4(x2)", "CUDA_VISIBLE_DEVICES": "0,1,2,3"}, Cluster("slurm", None, 8, 5, (1,))),
        # Bound by --gpus-per-task=1: each sees one, and calls it 0.
        (
            {**SLURM, "SLURM_STEP_TASKS_PER_NODE": "4(x2)", "CUDA_VISIBLE_DEVICES": "3", "SLURM_GPUS_ON_NODE": "4"},
            Cluster("slurm", None, 8, 5, (0,)),
        ),
        # A process a node: all of them, where jax alone takes one.
        (
            {**SLURM, "SLURM_STEP_TASKS_PER_NODE": "1(x8)", "SLURM_LOCALID": "0", "CUDA_VISIBLE_DEVICES": "0,1,2,3"},
            Cluster("slurm", None, 8, 5, (0, 1, 2, 3)),
        ),
        # Two processes a node of four GPUs.
        ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "2(x4)", "CUDA_VISIBLE_DEVICES": "0,1,2,3"}, Cluster("slurm", None, 8, 5, (2, 3))),
        ({**MPI, "OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:5"}, Cluster("ompi", None, 2, 1, (1,))),
        ({**MPI, "JAX_COORDINATOR_ADDRESS": "10.0.0.1:5"}, Cluster("", "10.0.0.1:5", 2, 1, (1,))),
        # A process a node: all GPUs, listed or not. Two processes of four; and each bound to one by a wrapper.
        ({**MPI_NODE, "CUDA_VISIBLE_DEVICES": "0,1,2,3"}, Cluster("", "a:1", 2, 1, (0, 1, 2, 3))),
        (MPI_NODE, Cluster("", "a:1", 2, 1, ())),
        ({**MPI, "JAX_COORDINATOR_ADDRESS": "a:1", "CUDA_VISIBLE_DEVICES": "0,1,2,3"}, Cluster("", "a:1", 2, 1, (2, 3))),
        ({**MPI, "JAX_COORDINATOR_ADDRESS": "a:1", "CUDA_VISIBLE_DEVICES": "3"}, Cluster("", "a:1", 2, 1, (0,))),
        (
            {"KUBERNETES_SERVICE_HOST": "x", "JOB_COMPLETION_INDEX": "3", "JAX_COORDINATOR_ADDRESS": "j-0.j:1", "JAX_NUM_PROCESSES": "4"},
            Cluster("", "j-0.j:1", 4, 3),
        ),
    ],
)
def test_each_launcher_is_understood(environment, want):
    assert find_cluster(environment=environment) == want


def test_a_machine_with_tpu_chips_lets_jax_look():
    assert find_cluster(environment={}, tpu_machine=True) == Cluster()


@pytest.mark.parametrize(
    ("others", "found"),
    [
        ((), False),
        ((("0x1ae0", "0x010802"), ("0x1ae0", "0x020000")), False),
        ((("0x10de", "0x030200"),), False),
        ((("0x1ae0", "0xff0000"),), True),
    ],
    ids=["nothing", "a disk and a network card", "a GPU", "a TPU"],
)
def test_a_tpu_is_told_from_what_any_machine_of_its_cloud_has(tmp_path, monkeypatch, others, found):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    for number, (vendor, kind) in enumerate(others):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "vendor").write_text(vendor + "\n")
        (tmp_path / str(number) / "class").write_text(kind + "\n")
    assert distributed.tpu_machine(tmp_path) is found
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert distributed.tpu_machine(tmp_path) is False


def test_flags_win_over_the_environment():
    environment = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
    assert find_cluster("b:2", 3, 0, environment) == Cluster("", "b:2", 3, 0)
    assert find_cluster("b:2", environment=SLURM) == Cluster("", "b:2", 8, 5, ())


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (("a:1", 2, None), {}, "got no process_id. Add --process_id or JAX_PROCESS_ID"),
        ((None, 2, 1), {}, "got no coordinator_address"),
        (("a", 2, 1), {}, "coordinator_address must be host:port of process 0, got 'a'"),
        (("a:1", 2, 2), {}, "process_id must lie in \\[0, num_processes = 2\\), got 2"),
        ((None, None, None), MPI, "OpenMPI 5 no longer does. Set JAX_COORDINATOR_ADDRESS"),
        (("a:1", None, 0), {"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES must be a number, got 'two'"),
    ],
)
def test_what_is_missing_is_named(arguments, environment, words):
    with pytest.raises(ValueError, match=words):
        find_cluster(*arguments, environment)


def test_a_process_alone_agrees_with_itself():
    event = threading.Event()
    assert not agree_to_stop(event, 3)
    event.set()
    assert agree_to_stop(event, 4)
