"""The paper's claims, measured: every contestant over one trunk, at equal training compute, from the same initial states.

settings.json -> settings -> cells -> (configs, demonstrations) -> training and rollouts -> one JSON a cell -> tables and plots

    python -m benchmarks.claims --scale=small --list
    python -m benchmarks.claims.render

README.md beside this file is the protocol.
"""
