"""Scripted experts of the robosuite tasks: what a hand that sees everything does next, as a function of the present state alone.

    reach   above the grasp, turned to it, then down a funnel: the better aligned, the lower     gripper open
    close   at the grasp, until the fingers rest on the object
    carry   up, across, and down a funnel over the goal                                         gripper closed
    release where the object is as low as it has to be

Which of these it is follows from where hand and object are and how wide the fingers stand, so an object that was lost is
reached for again. With noise of 0.1 of the limits on what is executed, they solve the first fifty demonstration states of seed 0
of each task: Lift in about 30 steps, NutAssemblySquare in 83 to 189, PickPlaceCan in 95 to 158. Written for this project.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

METRES = 0.05
RADIANS = 0.5
"""Limits of an action, along and about each axis."""

GAIN = 1.6
"""Displacement that is asked for, per displacement that is left; in a step the controller goes a quarter of what is asked for."""

TURN = 0.2
"""rad; the hand is turned in such strides: faster ones take it off its place."""

OPEN_WIDE = 0.07
"""m; fingers that go down around an object stand so far apart."""

NEAR = 0.012
"""m; the hand is so near to a grasp, along and across, when the fingers close."""

CARRY = 0.16
"""m; height at which an object is carried over walls and pegs, above where it is set down."""

SPOT = np.array([-0.04, -0.05])
"""m; where a can is set down, from its bin's middle, which the arm hardly reaches."""

HANDLE = 0.06
"""m; from the nut's middle to where its handle is taken."""

STOP = -2.1
"""rad; the wrist's stop as a yaw of the hand, for an arm that points ahead: it turns nearly once around from there."""


class State(NamedTuple):
    """What there is to know.

    Attributes:
      hand, thing, goal: m, in the world's frame; z points up. `hand` is the point between the fingertips, `goal` 0 where there is none.
      hand_axes, thing_axes: columns are the axes of the body in the world's frame. The fingers open along the hand's y.
      opening: m between the fingers.
    """

    hand: Float[np.ndarray, "3"]
    hand_axes: Float[np.ndarray, "3 3"]
    opening: float
    thing: Float[np.ndarray, "3"]
    thing_axes: Float[np.ndarray, "3 3"]
    goal: Float[np.ndarray, "3"]


class Grasp(NamedTuple):
    """Where the hand takes an object.

    Attributes:
      point: m, in the world's frame.
      yaw: rad; the angle of the hand's x axis about the vertical.
      width: m; the fingers stand so far apart when they hold it.
    """

    point: Float[np.ndarray, "3"]
    yaw: float
    width: float


Expert = Callable[[State], Float[np.ndarray, "7"]]


def lift(state: State) -> Float[np.ndarray, "7"]:
    """Takes the cube by two of its faces and raises it."""
    grasp = Grasp(state.thing, _nearest(_yaw(state.thing_axes), _yaw(state.hand_axes) / 2, np.pi / 2), width=0.043)
    if not _holds(state, grasp):
        return _reach(state, grasp)
    return _move(state, np.array([0.0, 0.0, METRES]), grasp.yaw, gripper=0.0)


def place_can(state: State) -> Float[np.ndarray, "7"]:
    """Takes the can, lowers it into its bin, and goes away upwards."""
    grasp = Grasp(state.thing + np.array([0.0, 0.0, 0.01]), 0.0, width=0.049)
    from_middle, height = state.thing[:2] - state.goal[:2], state.thing[2] - state.goal[2]
    if np.all(np.abs(from_middle) < [0.08, 0.105]) and height < 0.085:
        rise = METRES if state.opening > OPEN_WIDE else 0.07 - height  # fingers first
        return _move(state, np.array([0.0, 0.0, rise]), grasp.yaw, gripper=1.0)
    if not _holds(state, grasp):
        return _reach(state, grasp)
    return _carry(state, SPOT - from_middle, height, low=0.08, tolerance=0.015, yaw=grasp.yaw, clear=np.inf)


def assemble_square(state: State) -> Float[np.ndarray, "7"]:
    """Takes the nut by its handle, turns the handle towards the robot, and lowers the nut over the peg.

    With the handle away from the robot or to a side the arm would not reach. The hand may hold the handle either way round: it takes
    the one with the shorter way to turn, before and after.
    """
    nut, hand = _yaw(state.thing_axes), _turn(_yaw(state.hand_axes))
    ways = [(_turn(nut + np.pi), 0.0), (_turn(nut), np.pi)]
    yaw = min(ways, key=lambda way: abs(way[0] - hand) + abs(way[1] - way[0]))[0]
    grasp = Grasp(state.thing + HANDLE * state.thing_axes[:, 0], yaw, width=0.032)
    across, height = state.goal[:2] - state.thing[:2], state.thing[2] - state.goal[2]
    if not _holds(state, grasp):
        return _reach(state, grasp)
    return _carry(state, across, height, low=0.01, tolerance=0.005, yaw=_turn(hand + np.pi - nut), clear=0.15)


def _reach(state: State, grasp: Grasp) -> Float[np.ndarray, "7"]:
    """Towards the grasp with open fingers, down a funnel; closes them where it is there."""
    offset, turn = grasp.point - state.hand, grasp.yaw - _turn(_yaw(state.hand_axes))
    off = float(np.linalg.norm(offset[:2])) + 0.02 * abs(turn)
    near = NEAR if state.opening > OPEN_WIDE else 1.5 * NEAR
    if off < near and abs(offset[2]) < near and state.opening > grasp.width - 0.008:
        return _move(state, offset, grasp.yaw, gripper=0.0)
    narrow = state.opening < OPEN_WIDE
    offset[2] += np.clip(3 * (off - 0.8 * NEAR), 0.05 if narrow else 0.0, 0.10)
    return _move(state, offset, grasp.yaw, gripper=1.0)


def _holds(state: State, grasp: Grasp) -> bool:
    """Whether the fingers rest on the object at the grasp."""
    off = np.abs(state.hand_axes.T @ (grasp.point - state.hand))
    return bool(np.all(off < [0.02, 0.012, 0.02]) and abs(state.opening - grasp.width) < 0.005)


def _carry(
    state: State, across: Float[np.ndarray, "2"], height: float, low: float, tolerance: float, yaw: float, clear: float
) -> Float[np.ndarray, "7"]:
    """Brings what is held `across` m and down to `low`, where it lets go.

    It stays high over everything until it is within `tolerance` of there. Within `clear` of there it goes on only once it is high
    enough and turned: an arm at the end of its reach cannot be drawn back.
    """
    turn = abs(yaw - _turn(_yaw(state.hand_axes)))
    off = float(np.linalg.norm(across)) + 0.02 * turn
    if off < 2 * tolerance and height < low:
        return _move(state, np.array([0.0, 0.0, low - 0.01 - height]), yaw, gripper=1.0)
    wanted = low - 0.01 + np.clip(20 * (off - tolerance), 0.0, CARRY)
    ready = np.clip(1 + (height - wanted) / 0.03, 0.0, 1.0) * (turn < 0.3)
    return _move(state, np.append((ready if off < clear else 1.0) * across, wanted - height), yaw, gripper=0.0)


def _move(state: State, offset: Float[np.ndarray, "3"], yaw: float, gripper: float) -> Float[np.ndarray, "7"]:
    """The action that moves the hand by `offset` m and turns it to `yaw`, fingers down."""
    now = _turn(_yaw(state.hand_axes))
    next_yaw = now + np.clip(yaw - now, -TURN, TURN)
    cos, sin = np.cos(next_yaw), np.sin(next_yaw)
    wanted = np.array([[cos, sin, 0.0], [sin, -cos, 0.0], [0.0, 0.0, -1.0]])
    turn = np.clip(GAIN * _rotation_vector(wanted @ state.hand_axes.T), -RADIANS, RADIANS)
    return np.concatenate([np.clip(GAIN * offset, -METRES, METRES), turn, [gripper]])


def _yaw(axes: Float[np.ndarray, "3 3"]) -> float:
    """rad; the angle of the x axis about the vertical."""
    return float(np.arctan2(axes[1, 0], axes[0, 0]))


def _turn(yaw: float) -> float:
    """The same angle of the hand as one that the wrist reaches without passing its stop."""
    return (yaw - STOP) % (2 * np.pi) + STOP


def _nearest(yaw: float, to: float, period: float) -> float:
    """Of yaw + n period the one nearest to `to`."""
    return yaw + period * round((to - yaw) / period)


def _rotation_vector(rotation: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3"]:
    """Axis times angle, rad, for angles less than pi."""
    axis = np.array([rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]]) / 2
    sine = float(np.linalg.norm(axis))
    return axis if sine < 1e-6 else axis * (np.arctan2(sine, (np.trace(rotation) - 1) / 2) / sine)
