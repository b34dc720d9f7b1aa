"""Where each fact of the tables comes from: a short name, and what it stands for."""

SOURCES = {
    "features": "features.json of the published dataset (gs://gresearch/robotics, gs://gdm-robotics-open-x-embodiment)",
    "catalogue": "TFDS catalogue, https://www.tensorflow.org/datasets/catalog/NAME",
    "octo": "Octo's dataset configs and standardisation, https://github.com/octo-models/octo/tree/main/octo/data/oxe",
    "openvla": "OpenVLA's, https://github.com/openvla/openvla/tree/main/prismatic/vla/datasets/rlds/oxe",
    "rdt": "RDT-1B's control rates and preprocessing, https://github.com/thu-ml/RoboticsDiffusionTransformer",
    "openx2lerobot": "control rates and robots in https://github.com/Tavish9/openx2lerobot",
    "statistics": "action statistics published with OpenVLA and its descendants (dataset_statistics.json: min, q01, q99, max)",
    "records": "checked on real records, tests/data/test_bridge.py",
    "bridge": "https://rail-berkeley.github.io/bridgedata and the Open X-Embodiment overview table",
    "calvin": "CALVIN's dataset notes, by the same authors, https://github.com/mees/calvin/tree/main/dataset",
    "clvr": "https://github.com/clvrai/clvr_jaco_play_dataset",
    "droid": "https://github.com/droid-dataset/droid: droid/robot_ik/robot_ik_solver.py, droid/franka/robot.py, droid/robot_env.py",
    "dobbe": "https://github.com/notmahi/dobb-e",
    "fmb": "https://functional-manipulation-benchmark.github.io/dataset and https://github.com/rail-berkeley/fmb",
    "furniture_bench": "https://github.com/clvrai/furniture-bench: furniture_bench/envs, furniture_bench/device",
    "language_table": "https://github.com/google-research/language-table",
    "openpi": "https://github.com/Physical-Intelligence/openpi: src/openpi/training/droid_rlds_dataset.py",
    "ur5": "https://sites.google.com/view/berkeley-ur5",
}
