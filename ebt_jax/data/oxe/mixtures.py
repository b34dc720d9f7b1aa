"""Mixtures as others published them: dataset -> weight, by the name "where/which".

Their weights multiply the number of transitions, so take them with `weighting="transitions"`. Names are ours where theirs differ:
bridge_dataset is OpenVLA's bridge_orig, fmb its fmb_dataset. Where a list names a dataset twice, the first weight counts, as in
Octo's loader. Octo's `oxe_flex_act_soup` is not here: it needs datasets that are in no public bucket (aloha_static, rh20t) and
others that are not for control. A mixture that names refused datasets (Octo's and OpenVLA's rtx_franka) says so when it is opened.

Sources: https://github.com/octo-models/octo (octo/data/oxe/oxe_dataset_mixes.py) and https://github.com/openvla/openvla
(prismatic/vla/datasets/rlds/oxe/mixtures.py).
"""

SUFFIX = "_converted_externally_to_rlds"

_RTX = {
    "fractal20220817_data": 0.54087122203,
    "kuka": 0.8341046294,
    "bridge_dataset": 1.0,
    "taco_play": 2.0,
    "jaco_play": 2.0,
    "berkeley_cable_routing": 3.0,
    "roboturk": 1.0,
    "nyu_door_opening_surprising_effectiveness": 5.0,
    "viola": 2.0,
    "berkeley_autolab_ur5": 1.0,
    "toto": 1.0,
}
_FRANKA = {
    "stanford_hydra_dataset" + SUFFIX: 1.0,
    "austin_buds_dataset" + SUFFIX: 3.0,
    "nyu_franka_play_dataset" + SUFFIX: 3.0,
    "maniskill_dataset" + SUFFIX: 0.1,
    "furniture_bench_dataset" + SUFFIX: 0.1,
    "cmu_franka_exploration_dataset" + SUFFIX: 5.0,
    "austin_sailor_dataset" + SUFFIX: 1.0,
    "austin_sirius_dataset" + SUFFIX: 1.0,
    "berkeley_rpt" + SUFFIX: 1.0,
    "kaist_nonprehensile" + SUFFIX: 3.0,
    "stanford_robocook" + SUFFIX: 1.0,
    "iamlab_cmu_pickup_insert" + SUFFIX: 1.0,
    "utaustin_mutex": 1.0,
    "cmu_play_fusion": 1.0,
}
_MAGIC_SOUP = {
    "fractal20220817_data": 0.54087122203,
    "kuka": 0.8341046294,
    "bridge_dataset": 1.0,
    "taco_play": 2.0,
    "jaco_play": 1.0,
    "berkeley_cable_routing": 1.0,
    "roboturk": 2.0,
    "nyu_door_opening_surprising_effectiveness": 1.0,
    "viola": 2.0,
    "berkeley_autolab_ur5": 2.0,
    "toto": 1.0,
    "language_table": 0.1,
    "stanford_hydra_dataset" + SUFFIX: 2.0,
    "austin_buds_dataset" + SUFFIX: 1.0,
    "nyu_franka_play_dataset" + SUFFIX: 3.0,
    "furniture_bench_dataset" + SUFFIX: 0.1,
    "ucsd_kitchen_dataset" + SUFFIX: 2.0,
    "austin_sailor_dataset" + SUFFIX: 1.0,
    "austin_sirius_dataset" + SUFFIX: 1.0,
    "bc_z": 0.2,
    "dlr_edan_shared_control" + SUFFIX: 1.0,
    "iamlab_cmu_pickup_insert" + SUFFIX: 1.0,
    "utaustin_mutex": 1.0,
    "berkeley_fanuc_manipulation": 2.0,
    "cmu_stretch": 1.0,
}
_DOOR = "nyu_door_opening_surprising_effectiveness"


def _without(mixture: dict[str, float], *names: str) -> dict[str, float]:
    return {name: weight for name, weight in mixture.items() if name not in names}


MIXTURES: dict[str, dict[str, float]] = {
    "octo/bridge": {"bridge_dataset": 1.0},
    "octo/rtx": _RTX,
    "octo/rtx_franka": _RTX | _FRANKA,
    "octo/oxe_magic_soup": _MAGIC_SOUP,
    "openvla/bridge": {"bridge_dataset": 1.0},
    "openvla/bridge_rt_1": {"bridge_dataset": 1.0, "fractal20220817_data": 1.0},
    "openvla/rtx": _without(_RTX, _DOOR),
    "openvla/rtx_franka": _without(_RTX, _DOOR) | _FRANKA,
    "openvla/oxe_magic_soup": _without(_MAGIC_SOUP, _DOOR, "bc_z"),
    "openvla/oxe_magic_soup_plus": _without(_MAGIC_SOUP, _DOOR) | {"fmb": 1.0, "dobbe": 0.2, "droid": 0.06},
    "openvla/oxe_magic_soup_plus_minus": _without(_MAGIC_SOUP, _DOOR, "language_table")
    | {"fractal20220817_data": 1.0, "fmb": 1.0, "dobbe": 0.2},
}
