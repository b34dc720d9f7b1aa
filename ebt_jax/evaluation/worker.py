"""A process that holds simulators and does what it is told over a pipe: `python -m ebt_jax.evaluation.worker FD SUITE CAMERAS`.

It imports neither jax nor a model, and ends when the other end of the pipe is closed, however that came about.
"""

import contextlib
import signal
import sys
import traceback
from multiprocessing.connection import Connection

import numpy as np
from jaxtyping import Float

from ebt_jax import simulators
from ebt_jax.evaluation.messages import Failure, Lost, Outcome, Plan, Start
from ebt_jax.simulators.simulator import Simulator


class Seat:
    """One environment of the worker, with a new simulator whenever the task changes."""

    def __init__(self, suite: str, cameras: tuple[str, ...]) -> None:
        self._suite, self._cameras = suite, cameras
        self._simulator: Simulator | None = None
        self._start = Start("", 0, 0)
        self._steps = 0

    def answer(self, order: Start | Plan) -> Outcome | Lost:
        """What came of it. An error of the simulator ends this episode alone; the next one of this seat gets a new simulator.

        A plan for an episode that did not begin here is one for the process that was here before.

        Raises what making the simulator does, and NotImplementedError for what the suite does not know: no episode could do better.
        """
        if isinstance(order, Start) and (self._simulator is None or self._start.task != order.task):
            self.close()
            self._simulator = simulators.make(self._suite, order.task, self._cameras)
        if self._simulator is None:
            return Lost("its process died before it was asked.")
        try:
            return self._begin(order, self._simulator) if isinstance(order, Start) else self._execute(order, self._simulator)
        except NotImplementedError:
            raise
        except Exception as error:
            with contextlib.suppress(Exception):
                self.close()
            return Outcome([], [], False, True, {}, [], _described(error))

    def close(self) -> None:
        simulator, self._simulator = self._simulator, None
        if simulator is not None:
            simulator.close()

    def _begin(self, start: Start, simulator: Simulator) -> Outcome:
        self._start, self._steps = start, 0
        observation, _ = simulator.reset(seed=start.state)
        observation = self._disturbed(simulator) or observation
        return Outcome([observation], [], False, False, simulator.metrics(), self._picture(simulator))

    def _execute(self, plan: Plan, simulator: Simulator) -> Outcome:
        observations, rewards, pictures = [], [], []
        success = done = False
        for action in plan.actions:
            if self._steps:
                self._disturbed(simulator)
            action = self._released(action, simulator)
            observation, reward, success, truncated, _ = simulator.step(action)
            done = success or truncated
            self._steps += 1
            observations.append(observation)
            rewards.append(reward)
            pictures += self._picture(simulator, last=done)
            if done:
                break
        return Outcome(observations[-plan.keep :], rewards, success, done, simulator.metrics(), pictures)

    def _disturbed(self, simulator: Simulator) -> dict | None:
        """Pushes where it is time for it; what is seen then."""
        wrong = self._start.disturbance
        if not wrong.push or self._steps != wrong.at:
            return None
        return simulator.push(wrong.push, wrong.direction(self._start.state))

    def _released(self, action: Float[np.ndarray, " a"], simulator: Simulator) -> Float[np.ndarray, " a"]:
        """The action, with the gripper open while it is held so."""
        wrong = self._start.disturbance
        if not wrong.at <= self._steps < wrong.at + wrong.release:
            return action
        gripper = [dimension.kind == "gripper" for dimension in simulator.embodiment.action]
        if not any(gripper):
            raise NotImplementedError(f"suite {self._suite!r} has no gripper that could be held open.")
        return np.where(gripper, simulator.action_space.high, action)

    def _picture(self, simulator: Simulator, last: bool = False) -> list:
        every = self._start.picture_every
        wanted = every > 0 and (last or self._steps % every == 0)
        return [simulator.picture()] if wanted else []


def serve(connection: Connection, suite: str, cameras: tuple[str, ...]) -> None:
    """Answers {seat: Start or Plan} with {seat: Outcome} until the pipe is closed; an error of no single episode with `Failure`."""
    seats: dict[int, Seat] = {}
    while True:
        try:
            orders = connection.recv()
        except EOFError:
            break
        try:
            answers = {}
            for number, order in orders.items():
                seat = seats.setdefault(number, Seat(suite, cameras))
                answers[number] = seat.answer(order)
            connection.send(answers)
        except Exception as error:
            connection.send(Failure(_described(error)))
    for seat in seats.values():
        seat.close()


def _described(error: Exception) -> str:
    """Inside the handler of this error."""
    return f"{type(error).__name__}: {error}\n{traceback.format_exc()}"


if __name__ == "__main__":
    descriptor, suite_name, camera_names = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the evaluating process decides when this one ends
    sys.stdout = sys.stderr  # simulators greet their users; stdout belongs to the command's result
    serve(Connection(int(descriptor)), suite_name, tuple(camera_names.split(",")) if camera_names else ())
