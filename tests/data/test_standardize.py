"""From a dataset's numbers to ours: columns side by side, a gripper that is open or closed."""

import contextlib
import dataclasses

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import toy_rlds

from ebt_jax.data.spec import Conversion
from ebt_jax.data.standardize import binarize_gripper, check_grippers, convert, gripper_from_events, join
from ebt_jax.specs import ActionDimension

OPENINGS = hnp.arrays(np.float32, st.integers(0, 20), elements=st.floats(0, 1, width=32))


def test_columns_are_joined_in_the_spec_s_order():
    spec = dataclasses.replace(toy_rlds.SPEC, action_keys=("action/move", "action/open"), proprio_keys=(), proprio=())
    columns = {"action/move": np.array([[1, 2], [3, 4]]), "action/open": np.array([True, False])}
    action, proprio = join(spec, columns)
    np.testing.assert_array_equal(action, np.float32([[1, 2, 1], [3, 4, 0]]))
    assert proprio.shape == (2, 0)


def test_half_open_takes_the_next_settled_value():
    opening = np.float32([1, 0.8, 0.3, 0, 0.2, 0.9, 0.97, 0.6, 0.4])
    np.testing.assert_array_equal(binarize_gripper(opening), [1, 0, 0, 0, 1, 1, 1, 1, 0])


@hypothesis.given(OPENINGS)
def test_settled_values_stay_and_the_rest_follows_them(opening):
    binary = binarize_gripper(opening)
    assert set(binary.tolist()) <= {0.0, 1.0}
    assert (binary[opening > 0.95] == 1).all()
    assert (binary[opening < 0.05] == 0).all()
    settled = (opening > 0.95) | (opening < 0.05)
    for t in np.flatnonzero(~settled):
        later = np.flatnonzero(settled[t:])
        assert binary[t] == (binary[t + later[0]] if len(later) else float(opening[t] > 0.5))


@pytest.mark.parametrize(
    ("what", "given", "expected"),
    [
        ("open", [-1, 0, 0.5, 1], [0, 0, 0.5, 1]),
        ("closed", [-1, 0, 0.25, 1], [1, 1, 0.75, 0]),
        ("signed_open", [-1, 0, 0.5, 1], [0, 0.5, 0.75, 1]),
        ("relative_closed", [0, 1, 0, 0, -1, 0], [1, 0, 0, 0, 1, 1]),
        ("relative_closed", [0, 0, -1, 0], [0, 0, 1, 1]),
        ("relative_closed", [0, 0.05, 0], [1, 1, 1]),
        ("binarize", [1, 0.5, 0], [1, 0, 0]),
        ("wrap", [0, 2 * np.pi + 0.5, -2 * np.pi, 3.5], [0, 0.5, 0, 3.5 - 2 * np.pi]),
    ],
)
def test_one_number_a_step(what, given, expected):
    values = np.stack([np.float32(given), np.arange(len(given), dtype=np.float32)], axis=1)
    converted = convert(values, (Conversion(what, (0,)),))
    np.testing.assert_allclose(converted[:, 0], expected, atol=1e-6)
    np.testing.assert_array_equal(converted[:, 1], values[:, 1])


def test_columns_are_kept_scaled_and_limited():
    values = np.float32([[3, 4, 10, 20], [0.3, 0.4, 1, 2]])
    np.testing.assert_array_equal(convert(values, (Conversion("keep", (2, 0)),)), values[:, [2, 0]])
    np.testing.assert_allclose(convert(values, (Conversion("scale", (2, 3), 0.1),))[0], [3, 4, 1, 2])
    limited = convert(values, (Conversion("unit_ball", (0, 1), 0.075),))
    np.testing.assert_allclose(limited[:, :2], [[0.6 * 0.075, 0.8 * 0.075], [0.3 * 0.075, 0.4 * 0.075]], rtol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_quaternion_about_one_axis_is_that_angle(axis):
    angle = np.float32([0.0, 0.3, -1.2])
    quaternion = np.zeros((3, 4), np.float32)
    quaternion[:, axis], quaternion[:, 3] = np.sin(angle / 2), np.cos(angle / 2)
    values = np.column_stack([[7, 7, 7], quaternion, [9, 9, 9]]).astype(np.float32)
    converted = convert(values, (Conversion("quaternion_xyzw", (1, 2, 3, 4)),))
    expected = np.zeros((3, 5), np.float32)
    expected[:, 0], expected[:, 1 + axis], expected[:, 4] = 7, angle, 9
    np.testing.assert_allclose(converted, expected, atol=1e-6)


def test_a_quaternion_whose_w_comes_first_leaves_its_neighbours():
    """w x y z in columns 1 to 4, named x y z w: yaw 0.4 in their place, what stood before and after unchanged."""
    values = np.float32([[7, np.cos(0.2), 0, 0, np.sin(0.2), 9]])
    np.testing.assert_allclose(convert(values, (Conversion("quaternion_xyzw", (2, 3, 4, 1)),)), [[7, 0, 0, 0.4, 9]], atol=1e-6)


@pytest.mark.parametrize(("value", "holds"), [(-0.04, True), (1.04, True), (-1.0, False), (100.0, False)])
def test_a_gripper_lies_between_closed_and_open(value, holds):
    dimensions = (ActionDimension("x", "eef_delta", "m"), ActionDimension("gripper", "gripper", "", 0.0, 1.0))
    action = np.float32([[50.0, 0.5], [-50.0, value]])
    with contextlib.nullcontext() if holds else pytest.raises(ValueError, match=rf"'gripper' must .* got {value:g} at step 1.*signed_open"):
        check_grippers(action, dimensions)


def test_angles_turn_about_fixed_axes_in_turn():
    """Rz(yaw) Ry(pitch) Rx(roll), composed here from quaternions of single axes."""

    def multiply(a, b):
        (ax, ay, az, aw), (bx, by, bz, bw) = a, b
        vector = aw * np.array([bx, by, bz]) + bw * np.array([ax, ay, az]) + np.cross([ax, ay, az], [bx, by, bz])
        return np.append(vector, aw * bw - ax * bx - ay * by - az * bz)

    rpy = np.array([0.4, -0.7, 2.0])
    x, y, z = (np.append(np.sin(angle / 2) * np.eye(3)[i], np.cos(angle / 2)) for i, angle in enumerate(rpy))
    quaternion = multiply(z, multiply(y, x))[None].astype(np.float32)
    np.testing.assert_allclose(convert(quaternion, (Conversion("quaternion_xyzw", (0, 1, 2, 3)),))[0], rpy, atol=1e-6)


def test_a_residual_of_rotation_vectors_is_the_turn_between_them():
    now, change = np.float32([[0, 0, 1.0], [0.5, 0, 0], [0, 0, 0]]), np.float32([[0, 0, 0.25], [0, 0, 0], [0, -0.3, 0]])
    values = np.concatenate([now, change, [[1], [2], [3]]], axis=1).astype(np.float32)
    converted = convert(values, (Conversion("rotation_vector_residual", (0, 1, 2, 3, 4, 5)),))
    np.testing.assert_allclose(converted, [[0, 0, 0.25, 1], [0, 0, 0, 2], [0, -0.3, 0, 3]], atol=1e-6)


def test_columns_that_are_not_there_are_named():
    with pytest.raises(ValueError, match=r"conversion 'open' must name columns below 2, got \(2,\)"):
        convert(np.zeros((1, 2), np.float32), (Conversion("open", (2,)),))
    with pytest.raises(ValueError, match="conversion 'quaternion_xyzw' must name 4 columns"):
        Conversion("quaternion_xyzw", (0, 1, 2))
    with pytest.raises(ValueError, match="must name 1 columns of 0 or more"):
        Conversion("open", ())


@hypothesis.given(hnp.arrays(np.float32, st.integers(1, 20), elements=st.sampled_from([-1.0, 0.0, 1.0])))
def test_a_gripper_is_where_the_last_event_left_it(closing):
    opening = gripper_from_events(closing)
    for t, event in enumerate(closing):
        if event:
            assert opening[t] == float(event < 0)
        elif t:
            assert opening[t] == opening[t - 1]
