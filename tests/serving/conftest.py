"""Servers on a free port of this machine, in a thread of their own."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator

import pytest

from ebt_jax.policy import Policy
from ebt_jax.serving.server import PolicyServer


@contextlib.contextmanager
def running(policy: Policy, **settings) -> Iterator[int]:
    """The port of a server that runs inside the `with`."""
    ready, port, stop = threading.Event(), [0], asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with PolicyServer(policy, port=0, **{"batch_sizes": (1, 4), "energy_sizes": (1, 8), **settings}).running() as port[0]:
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(300)
    try:
        yield port[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(300)
        loop.close()
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def serve() -> Callable[..., contextlib.AbstractContextManager[int]]:
    return running
