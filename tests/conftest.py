"""Eight virtual CPU devices, no silent rank promotion, and the real data where a test asks for it."""

import os
import pathlib

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ["MUJOCO_GL"] = "disable"  # OSMesa beside XLA in one process can crash: tests that render start processes of their own

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config: pytest.Config) -> None:
    """Compiled programs are kept beside pytest's own cache: workers share them, and the next run starts warm."""
    jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("xla")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


@pytest.fixture(scope="session")
def test_data() -> pathlib.Path:
    """The folder of real Bridge and PushT data; its absence where EBT_JAX_TEST_DATA is set is a failure, not a skip."""
    folder = os.environ.get("EBT_JAX_TEST_DATA")
    if folder is None:
        pytest.skip("EBT_JAX_TEST_DATA is not set: no real data to test on")
    path = pathlib.Path(folder)
    assert path.is_dir(), f"EBT_JAX_TEST_DATA must be a folder, got {folder}"
    return path


@pytest.fixture(scope="session")
def tiny_config() -> dict:
    """The plain values of tests/toys/tiny.py."""
    import tiny

    from ebt_jax.config import plain

    return plain(tiny.get_config())


@pytest.fixture(scope="session")
def tiny_run(tiny_config, tmp_path_factory) -> pathlib.Path:
    """The workdir of a finished run of 20 updates on the bundled sample, over eight devices."""
    from ebt_jax.training.loop import train

    workdir = tmp_path_factory.mktemp("tiny_run")
    train(tiny_config, workdir)
    return workdir
