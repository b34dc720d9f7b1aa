"""Which cells, in which order, from which seeds: phases that share nothing, pairs that share everything but the contestant."""

import itertools

import numpy as np
import pytest
from made_up import small, write_settings

from benchmarks.claims.cells import BLOCK, Cell, Wanted, enumerate_cells, evaluation_seed, initial_states, result_path, seconds_left
from benchmarks.claims.settings import PHASES, read_settings
from ebt_jax.simulators.demonstrate import demonstration_state
from ebt_jax.simulators.simulator import MAX_SEED, evaluation_state


def test_cheap_first_and_every_contestant_at_a_seed_before_the_next_seed(tmp_path):
    cells = enumerate_cells(write_settings(tmp_path, small), "development", "small")
    order = [(cell.budget, cell.seed, cell.contestant) for cell in cells]
    assert order == list(itertools.product((2, 6), range(3), ("ebt-mse", "flow")))


def test_the_small_scale_is_the_planned_one():
    settings = read_settings()
    for phase in PHASES:
        cells = enumerate_cells(settings, phase, "small")
        assert len(cells) == len(set(cells)) == 11 * (3 * 3 + 3 * 5)
        assert [cell.budget for cell in cells] == sorted(cell.budget for cell in cells)


def test_some_can_be_asked_for(tmp_path):
    settings = write_settings(tmp_path, small)
    (cell,) = enumerate_cells(settings, "confirmation", "small", Wanted(("pusht",), ("flow",), (6,), (1,)))
    assert cell == Cell("confirmation", "small", "pusht", "flow", 6, 1)
    with pytest.raises(ValueError, match=r"contestants of development at small must be among \['ebt-mse', 'flow'\], got \['glow'\]"):
        enumerate_cells(settings, "development", "small", Wanted(contestants=("glow",)))
    with pytest.raises(ValueError, match="budgets of .* must be among"):
        enumerate_cells(settings, "development", "small", Wanted(budgets=(20,)))


def test_phases_share_no_training_seed_and_no_initial_state():
    settings = read_settings()
    seen = {}
    for phase in PHASES:
        cells = enumerate_cells(settings, phase, "small")
        trainings = {cell.training_seed for cell in cells}
        states = {(cell.suite, state) for cell in cells for state in initial_states(settings, cell)}
        seen[phase] = trainings, states
    (trained, states), (confirmed, fresh) = (seen[phase] for phase in PHASES)
    assert not trained & confirmed
    assert not states & fresh
    published = {evaluation_state(0, episode) for episode in range(1000)}
    demonstrated = {demonstration_state(0, attempt) for attempt in range(1000)}
    assert not {state for _, state in states | fresh} & (published | demonstrated)


def test_blocks_hold_every_number():
    """By construction: the last number of a block and the first of the next are neighbours, and the simulators take them all."""
    seeds = []
    settings = read_settings()
    for phase in PHASES:
        first, last = (Cell(phase, "small", "pusht", "flow", 2, number) for number in (0, BLOCK - 1))
        seeds += [(first.training_seed, last.training_seed)]
        seeds += [(evaluation_seed(settings, first), evaluation_seed(settings, last))]
    assert all(one[1] < other[0] for one, other in itertools.pairwise(sorted(seeds)))
    assert max(last for _, last in seeds) < MAX_SEED


def test_contestants_share_their_initial_states_and_seeds_do_not(tmp_path):
    settings = write_settings(tmp_path, small)
    states = {}
    for cell in enumerate_cells(settings, "confirmation", "small"):
        states.setdefault(cell.seed, set()).add(tuple(initial_states(settings, cell)))
    assert [len(found) for found in states.values()] == [1, 1, 1]
    assert len(set.union(*(set(one) for (one,) in states.values()))) == 3 * 20


def test_a_trial_belongs_to_the_name_in_development_alone(tmp_path):
    cell = Cell("development", "small", "pusht", "flow", 2, 0)
    assert result_path(tmp_path, cell, "abcd") == tmp_path / "development/small/pusht/flow/2_core_minutes/seed_0-abcd.json"
    assert result_path(tmp_path, cell._replace(phase="confirmation"), "abcd").name == "seed_0.json"


def test_the_time_left_comes_from_the_nearest_finished_cells():
    flow = Cell("development", "small", "pusht", "flow", 2, 0)
    assert seconds_left([flow], {}, cores=2) == 2 * 2 * 60 / 2
    finished = {flow: 100.0, flow._replace(contestant="ebt-mse"): 300.0}
    assert seconds_left([flow._replace(seed=1)], finished, 2) == 100
    assert seconds_left([flow._replace(budget=6)], finished, 2) == 300
    assert seconds_left([flow._replace(contestant="other")], finished, 2) == 200
    assert seconds_left([], finished, 2) == 0


def test_published_states_are_the_same_for_every_training():
    settings = read_settings()
    states = {
        tuple(initial_states(settings, cell))
        for cell in enumerate_cells(settings, "confirmation", "published", Wanted(suites=("pusht-90",)))
    }
    assert states == {tuple(range(100_000, 100_050))}


def test_one_policy_of_many_tasks_starts_each_from_the_same_states():
    settings = read_settings()
    cell, *_ = enumerate_cells(settings, "confirmation", "breadth", Wanted(suites=("ten-tasks",)))
    states = np.array(initial_states(settings, cell)).reshape(10, 20)
    assert (states == states[0]).all()
    assert len(set(states[0])) == 20


def test_a_scale_may_compare_fewer():
    settings = read_settings()
    compared = {cell.contestant for cell in enumerate_cells(settings, "confirmation", "breadth")}
    assert compared == set(settings.scale("breadth").contestants) < set(settings.contestants)
    with pytest.raises(ValueError, match="contestants of confirmation at breadth must be among"):
        enumerate_cells(settings, "confirmation", "breadth", Wanted(contestants=("generator",)))
    assert enumerate_cells(settings, "development", "breadth") == []
