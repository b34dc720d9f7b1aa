"""Settings of cells that are run within a test, and what they learn from."""

import pathlib

from ebt_jax.data.settings import bundled_sample_dir


def tiny(tree):
    """The bundled sample's task, two contestants, one update's worth of budget and a little more, two episodes."""
    scale = tree["scales"]["small"]
    tree["scales"] = {"small": scale}
    shrink(scale)
    suite = {
        **scale["suites"]["assembly"],
        "task": "pick-place-v3",
        "budgets": [1],
        "seeds": 1,
        "episodes": {"development": 2},
        "conditions": {},
    }
    scale["suites"] = {"pick-place": suite}
    tree["contestants"] = {name: tree["contestants"][name] for name in ("equilibrium", "regression")}
    resting = {"num_steps": 9, "change": {"method.travel": 2.0}, "stopping": {"min_step_length": 1e-9}}
    tree["contestants"]["equilibrium"]["samplers"] = {"2": 2, "1": 1, "adaptive": resting}
    tree["contestants"]["equilibrium"]["sweep"] = {"key": "method.travel", "values": [0.5, 1.25], "num_steps": [2]}
    tree["comparisons"] = tree["primary"] = [["equilibrium/2", "regression/1"]]


def shrink(scale):
    """To a really tiny network and a little more than one update."""
    scale["core_minute"] = 1e8
    scale["config"]["model"] |= {"width": 16, "decoder_layers": 1, "heads": 2, "unroll": 1}
    scale["config"]["batch_size"] = 8
    scale["config"]["mesh"] = {"data": -1, "fsdp": 1}  # pytest has eight devices


def demonstrated(folder):
    """The bundled sample in the place of what the suite's expert would show."""
    folder.mkdir()
    (folder / "metaworld_pick_place_v3_10").symlink_to(pathlib.Path(bundled_sample_dir(), "metaworld_pick_place_v3"))
