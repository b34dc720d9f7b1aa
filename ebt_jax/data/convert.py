"""Other people's formats by name: each function opens one and gives a `Conversion` to write as RLDS."""

from collections.abc import Callable

from ebt_jax.data.conversion import Conversion
from ebt_jax.data.lerobot import lerobot
from ebt_jax.data.pusht import pusht_zarr
from ebt_jax.data.robomimic import robomimic_hdf5
from ebt_jax.data.spec import DatasetSpec

SOURCES: dict[str, Callable[[str, str, DatasetSpec | None], Conversion]] = {
    "pusht_zarr": pusht_zarr,
    "robomimic_hdf5": robomimic_hdf5,
    "lerobot": lerobot,
}
"""Source -> (path, name or "", spec or None) -> what to write."""
