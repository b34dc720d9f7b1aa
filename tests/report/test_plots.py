"""The lines that are drawn are the numbers that went in."""

import numpy as np
import pytest

from ebt_jax.report.plots import descent, success_rates, training_curves


def panels(figure):
    """Title -> axes of a figure's visible panels."""
    return {axis.get_title(loc="left"): axis for axis in figure.axes if axis.axison}


def lines(axis):
    """Label -> [n 2] points of an axis."""
    return {line.get_label(): line.get_xydata() for line in axis.get_lines()}


def test_validation_shares_the_panel_of_training():
    records = [{"step": step, "loss": 1.0 / (1 + step)} for step in range(5)] + [{"step": 4, "validation/loss": 0.5, "learning_rate": 1e-3}]
    drawn = panels(training_curves(records))
    assert list(drawn) == ["loss", "learning rate"]
    curves = lines(drawn["loss"])
    np.testing.assert_allclose(curves["training"], [[step, 1.0 / (1 + step)] for step in range(5)])
    np.testing.assert_allclose(curves["validation"], [[4, 0.5]])


def test_quantities_read_side_by_side_share_a_panel():
    records = [{"step": 1, "loss": 9.0, "loss_mean": 1.0, "rmse_first": 0.4, "rmse_last": 0.3, "time/data": 0.1, "time/step": 0.9}]
    records += [{"step": 2, "validation/action_mse": 0.1, "validation/mean_action_mse": 0.6, "validation/error/x": 0.01}]
    found = {name: list(lines(axis)) for name, axis in panels(training_curves(records)).items()}
    assert found == {
        "loss": ["training"],
        "distance to the demonstration": ["after the first step", "after the last step"],
        "squared error of actions": ["policy", "always the mean action"],
        "share of the time": ["data", "step"],
        "error of a dimension, its own unit": ["x"],
    }
    assert lines(panels(training_curves(records))["loss"])["training"][0, 1] == 1.0


def test_axis_is_logarithmic_where_values_span_decades():
    records = [{"step": step, "wide": 10.0**-step, "narrow": 1.0 + step, "signed": (-10.0) ** step} for step in range(4)]
    drawn = panels(training_curves(records))
    assert {name: axis.get_yscale() for name, axis in drawn.items()} == {"wide": "log", "narrow": "linear", "signed": "linear"}


def test_running_mean_of_noise_is_its_mean():
    values = 5.0 + np.where(np.arange(400) % 2, 1.0, -1.0)
    drawn = panels(training_curves([{"step": step, "loss": value} for step, value in enumerate(values)]))
    smooth = lines(drawn["loss"])["training"][:, 1]
    assert smooth.shape == (400,)
    np.testing.assert_allclose(smooth, 5.0, atol=1 / 13)


def test_words_and_gaps_are_left_out():
    records = [{"step": 0, "loss": float("nan"), "host": "a"}, {"step": 1, "loss": 2.0}]
    np.testing.assert_allclose(lines(panels(training_curves(records))["loss"])["training"], [[1, 2.0]])
    with pytest.raises(ValueError, match="at least one finite number beside the step"):
        training_curves(records[:1])


def test_descent_ignores_the_level_of_the_energy():
    """Adding any h(observation) to E changes nothing that is drawn."""
    generator = np.random.default_rng(0)
    energy = generator.normal(size=(4, 9))
    first = panels(descent(energy, np.ones((3, 9))))
    second = panels(descent(energy + 100 * generator.normal(size=(1, 9)), np.ones((3, 9))))
    title = "energy above the returned chunk's"
    for axis in (first[title], second[title]):
        np.testing.assert_allclose(lines(axis)["median of 9 chunks"][:, 1], np.median(energy - energy[-1], axis=1), atol=1e-9)


def test_descent_of_samples_that_stopped_early():
    energy = np.array([[3.0, 5.0], [2.0, np.nan], [1.0, 1.0]])
    axis = panels(descent(energy, np.ones((2, 2))))["energy above the returned chunk's"]
    np.testing.assert_allclose(lines(axis)["median of 2 chunks"], [[0, 3.0], [1, 1.0], [2, 0.0]])


def test_method_without_energy_shows_distances_only():
    nothing = np.full((3, 2), np.nan)
    assert list(panels(descent(nothing, nothing[:2], np.ones((3, 2))))) == ["distance to the demonstration"]
    with pytest.raises(ValueError, match="finite energies, gradient norms or errors"):
        descent(nothing, nothing[:2])


def test_success_rates_are_sorted_with_their_intervals():
    tasks = {
        "hard": {"success_rate": 0.2, "wilson_95": [0.1, 0.35], "successes": 2, "episodes": 10},
        "easy": {"success_rate": 0.9, "wilson_95": [0.6, 0.98], "successes": 9, "episodes": 10},
    }
    (axis,) = success_rates(tasks).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["easy", "hard"]
    drawn = [line.get_xdata() for line in axis.get_lines()]
    np.testing.assert_allclose(np.concatenate(drawn), [0.6, 0.98, 0.9, 0.1, 0.35, 0.2])
