"""Many clients, one policy: whoever waits when the policy is free goes into one batch.

    connections --> one waiting request each (a newer one replaces it) --> [ batch of a known size ] --> policy, in its own thread

A row's answer is a function of its observation and its (seed, episode, step) alone, so whom it shares a batch with does not matter
(on CPUs in float32 1e-5 in normalised units, bit for bit at one batch size; elsewhere see `Policy.sample_actions`). Batches are filled
up to one of a few sizes, as are the chunks of a request for energies. Every size is compiled for every number of sampler steps before
the first client comes, and nothing afterwards: a program that one client needs would keep all others waiting.
"""

import collections
import concurrent.futures
import itertools
import math
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Array, Int, UInt32

from ebt_jax.policy import NotFiniteError, Policy, empty_batch
from ebt_jax.serving.schema import Request, RequestError
from ebt_jax.types import Keys

Answer = dict[str, Any]

BATCH_SIZES = (1, 4, 16)
ENERGY_SIZES = (1, 16, 256)
"""Chunks of one request whose energies are one call."""


class _Waiting(NamedTuple):
    request: Request
    arrived: float
    future: "concurrent.futures.Future[Answer]"


class Batcher:
    """Runs a policy in a thread of its own; `submit` may be called from any."""

    def __init__(
        self,
        policy: Policy,
        batch_sizes: Sequence[int] = BATCH_SIZES,
        sample_steps: Sequence[int] = (),
        energy_sizes: Sequence[int] = ENERGY_SIZES,
    ) -> None:
        """`sample_steps`: beside the policy's own. Raises what `check_sizes` raises."""
        check_sizes(batch_sizes, sample_steps, energy_sizes)
        self.sample_steps = tuple(dict.fromkeys([policy.sample_steps, *sample_steps]))
        """Numbers of sampler steps that are compiled, the policy's own first."""
        self.energy_sizes = tuple(energy_sizes) if policy.method.energy is not None else ()
        """Numbers of chunks for whose energies a program is compiled; none where the policy has no energy."""
        self._policy, self._sizes = policy, tuple(batch_sizes)
        self._waiting: dict[Hashable, _Waiting] = {}
        self._wake = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="policy", daemon=True)
        self.batch_counts: collections.Counter[int] = collections.Counter()
        """Requests in a batch -> batches so far."""

    def start(self) -> None:
        """Compiles every size, then begins to answer. `stop` ends it after the program it is at.

        Raises what the policy raises for a number of sampler steps that it cannot take.
        """
        blank = empty_batch(self._policy.specs)
        observation = jax.tree.map(np.asarray, blank.observation)
        for steps, size in itertools.product(self.sample_steps, self._sizes):
            request = Request(None, "act", observation, 0, 0, 0, steps, math.inf, None)
            self._compile(lambda request=request, size=size: self._chunks([request] * size), f"{size} at a time, {steps} steps")
        for size in self.energy_sizes:
            chunks = np.zeros((size, *blank.actions.shape[1:]), np.float32)
            request = Request(None, "energy", observation, 0, 0, 0, self.sample_steps[0], math.inf, chunks)
            self._compile(lambda request=request: self._energies(request), f"energies of {size}")
        self._thread.start()

    def _compile(self, call: Callable[[], object], what: str) -> None:
        """Calls as a request will: what is compiled on the way is there when it comes."""
        if self._stopped:
            return
        begun = time.perf_counter()
        call()
        logging.info("compiled for %s in %.1f s", what, time.perf_counter() - begun)

    def stop(self) -> None:
        """Refuses what waits and ends the thread after the batch it is at."""
        with self._wake:
            self._stopped = True
            for waiting in self._waiting.values():
                waiting.future.set_exception(RequestError("stopping", "the server is stopping; connect again later."))
            self._waiting.clear()
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    def submit(self, client: Hashable, request: Request) -> "concurrent.futures.Future[Answer]":
        """The answer to come. A request of the same client that still waits is refused, its observation being out of date.

        The new one takes its place in the line: a client that asks faster than it is answered is served as often as the others.
        """
        future: concurrent.futures.Future[Answer] = concurrent.futures.Future()
        with self._wake:
            if self._stopped:
                raise RequestError("stopping", "the server is stopping; connect again later.")
            old = self._waiting.get(client)
            if old is not None:
                old.future.set_exception(RequestError("superseded", "a newer observation of the same client came before this one's turn."))
            self._waiting[client] = _Waiting(request, time.perf_counter(), future)
            self._wake.notify()
        return future

    def forget(self, client: Hashable) -> None:
        """Drops what a client that went away was waiting for."""
        with self._wake:
            waiting = self._waiting.pop(client, None)
        if waiting is not None:
            waiting.future.cancel()

    def _work(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._waiting or self._stopped)
                if self._stopped:
                    return
                batch = self._take()
            if not batch:
                continue
            try:
                answers = self._answer(batch)
            except Exception as error:  # a fault of ours: the log says what, the clients only that
                logging.exception("a batch of %d failed", len(batch))
                answers = [RequestError("internal", f"the policy failed ({type(error).__name__}); the server's log says why.")] * len(batch)
            self.batch_counts[len(batch)] += 1
            for waiting, answer in zip(batch, answers, strict=True):
                if isinstance(answer, RequestError):
                    waiting.future.set_exception(answer)
                else:
                    waiting.future.set_result(answer)

    def _take(self) -> list[_Waiting]:
        """The first in the line and others that can share its call; those past their deadline are refused."""
        now = time.perf_counter()
        batch: list[_Waiting] = []
        for client, waiting in list(self._waiting.items()):
            request, late = waiting.request, 1e3 * (now - waiting.arrived)
            if late > request.deadline_ms:
                waiting.future.set_exception(
                    RequestError("deadline", f"the deadline of {request.deadline_ms:g} ms must not pass in the queue, got {late:.0f} ms.")
                )
            elif not batch or (len(batch) < self._sizes[-1] and _shares(batch[0].request, request)):
                batch.append(waiting)
            else:
                continue
            del self._waiting[client]
        return batch

    def _answer(self, batch: list[_Waiting]) -> list[Answer | RequestError]:
        begun = time.perf_counter()
        requests = [waiting.request for waiting in batch]
        rows = self._energies(requests[0]) if requests[0].kind == "energy" else self._chunks(requests)
        done = time.perf_counter()
        for waiting, row in zip(batch, rows, strict=True):
            if isinstance(row, dict):
                timing = row.setdefault("server_timing", {})
                timing.update({"queue_ms": 1e3 * (begun - waiting.arrived), "infer_ms": 1e3 * (done - begun), "batch": len(batch)})
        return rows

    def _chunks(self, requests: list[Request]) -> list[Answer | RequestError]:
        size = next(size for size in self._sizes if size >= len(requests))
        padded = requests + requests[:1] * (size - len(requests))
        observation = jax.tree.map(lambda *rows: np.concatenate(rows), *(request.observation for request in padded))
        seeds = jnp.array([request.seed for request in padded], jnp.uint32)
        episodes, steps = (jnp.array([getattr(request, name) for request in padded], jnp.int32) for name in ("episode", "step"))
        try:
            output = self._policy.sample_actions(observation, _keys(seeds, episodes, steps), requests[0].sample_steps)
        except NotFiniteError as error:  # of some rows: the others are other clients'
            output = error.output
        per_row = {name: value for name, value in output._asdict().items() if isinstance(value, np.ndarray) and value.ndim == 1}
        stages = {f"{stage}_ms": 1e3 * seconds for stage, seconds in output.seconds.items()}
        rows: list[Answer | RequestError] = []
        for i in range(len(requests)):
            if not np.isfinite(output.actions[i]).all():
                rows.append(RequestError("not_finite", "the policy's actions must be finite, got NaN or infinity: do not move."))
            else:
                rows.append(
                    {
                        "actions": np.ascontiguousarray(output.actions[i]),
                        **{name: value[i].item() for name, value in per_row.items()},
                        "server_timing": dict(stages),
                    }
                )
        return rows

    def _energies(self, request: Request) -> list[Answer | RequestError]:
        """E of each of the request's chunks, filled up to one of the sizes."""
        assert request.actions is not None
        count = len(request.actions)
        size = next(size for size in self.energy_sizes if size >= count)
        actions = np.concatenate([request.actions, np.repeat(request.actions[:1], size - count, axis=0)])
        return [{"energies": np.asarray(self._policy.energy(request.observation, actions)[:count], np.float32)}]


def check_sizes(batch_sizes: Sequence[int], sample_steps: Sequence[int], energy_sizes: Sequence[int]) -> None:
    """Raises ValueError for sizes that are not positive and ascending, and for steps that are not positive."""
    for name, sizes in (("batch_sizes", batch_sizes), ("energy_sizes", energy_sizes)):
        if not sizes or sizes[0] < 1 or list(sizes) != sorted(set(sizes)):
            raise ValueError(f"{name} must be positive and ascending, got {tuple(sizes)}.")
    if min(sample_steps, default=1) < 1:
        raise ValueError(f"sample_steps must be positive, got {tuple(sample_steps)}.")


def _shares(first: Request, other: Request) -> bool:
    """Whether two requests can be one call of the policy."""
    return first.kind == other.kind == "act" and first.sample_steps == other.sample_steps


@jax.jit
def _keys(seeds: UInt32[Array, " b"], episodes: Int[Array, " b"], steps: Int[Array, " b"]) -> Keys:
    """`Policy.sample_keys`, each row with its own seed."""
    fold = lambda seed, episode, step: jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), episode), step)
    return jax.vmap(fold)(seeds, episodes, steps)
