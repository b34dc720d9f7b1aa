"""The specs of data that is not here, from what is known of it: for compiling a run before its data has been copied anywhere."""

from ebt_jax.data import pusht
from ebt_jax.data.mixture import equal_specs, with_tokenizer
from ebt_jax.data.oxe import ENTRIES
from ebt_jax.data.settings import DataSettings
from ebt_jax.data.spec import DatasetSpec
from ebt_jax.specs import Specs

PUSHT = DatasetSpec(
    "pusht",
    ("action",),
    pusht.ACTION,
    ("observation/state",),
    pusht.PROPRIO,
    action_frame=pusht.FRAME,
    control_rate_hz=pusht.CONTROL_RATE_HZ,
)


def described_specs(settings: DataSettings) -> Specs:
    """What a policy trained on these datasets would be told.

    Raises ValueError for one of which nothing is known, listing the others, and for a tokenizer that cannot be read.
    """
    settings = with_tokenizer(settings)
    known = {"pusht": PUSHT, **{name: entry.spec for name, entry in ENTRIES.items()}}
    unknown = [name for name in settings.weights if name not in known]
    if unknown:
        raise ValueError(f"datasets must be among {sorted(known)} where data.data_dir is not given, got {unknown}. Give the folder.")
    if settings.combine == "union":
        raise ValueError("data.combine must be 'equal' where data.data_dir is not given, got 'union'. Give the folder of the datasets.")
    return equal_specs([known[name].show(settings.proprio) for name in settings.weights], settings)
