"""A server and its clients, over real sockets: answers are never crossed, faults are named, strangers stay out."""

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import http.client
import json
import socket
import threading
import time

import echo
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from formulas import formula_policy
from mutations import mutate
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from ebt_jax.serving import batcher, server, wire
from ebt_jax.serving.client import Client, ServerError
from ebt_jax.serving.schema import Schema
from ebt_jax.serving.server import PolicyServer
from ebt_jax.specs import LanguageSpec, Specs

TOKEN = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def port(serve):
    with serve(echo.echo_policy(), max_frame_bytes=200_000, sample_steps=(1,)) as port:
        yield port


@pytest.fixture
def client(port):
    with Client(f"ws://127.0.0.1:{port}") as client:
        yield client


def get(port, path, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path, headers=headers or {})
    response = connection.getresponse()
    return response.status, response.read().decode()


def eventually(holds, seconds=60.0):
    """Returns once `holds()`: what a server notes after it has answered is there a moment later."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_example_observation_can_be_sent_back_as_it_is(client):
    answer = client.infer(client.metadata["example_observation"])
    assert answer["actions"].shape == (4, 2)
    assert client.metadata["specs"]["action"]["dimensions"][0]["unit"] == "m"
    assert {"energy", "num_steps", "server_timing"} <= set(answer)
    assert {"queue_ms", "infer_ms", "total_ms", "encode_ms", "minimize_ms"} <= set(answer["server_timing"])


def test_a_policy_with_a_tokenizers_vocabulary_is_served(serve):
    """100 kB in one string of the specs, where a client's own may have 64."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "pick", *(f"piece{number:06d}" for number in range(8_000))]
    language = LanguageSpec("tokens", 8, len(pieces), "wordpiece", "\n".join(pieces))
    specs = dataclasses.replace(echo.SPECS, observation=dataclasses.replace(echo.SPECS.observation, language=language))
    policy = dataclasses.replace(echo.echo_policy(), specs=specs)
    with serve(policy, batch_sizes=(1,)) as port, Client(f"ws://127.0.0.1:{port}") as client:
        assert len(language.vocabulary) > 95_000
        assert Specs.from_json(json.dumps(client.metadata["specs"])) == specs
        assert client.infer(client.metadata["example_observation"])["actions"].shape == (4, 2)
        with pytest.raises(ServerError, match="bad_frame: .*exceeds max_str_len"):
            client.infer({**echo.observation(1), "prompt": "x" * 65_537})


def test_a_camera_that_a_client_does_not_send_is_named_once(port, caplog):
    sent, left_out = echo.observation(1), echo.observation(1)
    del left_out["images/primary"]
    for observations, warnings in (((left_out, left_out), 1), ((sent, left_out), 0)):
        caplog.clear()
        with Client(f"ws://127.0.0.1:{port}") as client:
            for observation in observations:
                client.infer(observation)
        assert caplog.text.count("sends no images/primary: the policy acts without") == warnings


def test_only_what_was_compiled_can_be_asked_for(client):
    assert client.metadata["limits"]["sample_steps"] == [2, 1]
    with pytest.raises(ServerError, match="sample_steps must be one of 2, 1, .* got 3"):
        client.infer({**echo.observation(1), "sample_steps": 3})
    with pytest.raises(ServerError, match="m from 1 to 8"):
        client.energies(echo.observation(1), np.zeros((9, 4, 2)))


def test_nothing_is_compiled_once_the_server_listens(serve):
    policy = echo.echo_policy()
    with serve(policy, batch_sizes=(1,), sample_steps=(1,)) as port, Client(f"ws://127.0.0.1:{port}") as client:
        programs = [policy._encode, policy._sample, policy._to_robot, policy._energy, batcher._keys]
        before = [program._cache_size() for program in programs]
        for steps in (1, 2, None):
            client.infer({**echo.observation(1), "sample_steps": steps})
        for count in (1, 5, 8):
            assert client.energies(echo.observation(1), np.zeros((count, 4, 2))).shape == (count,)
        assert [program._cache_size() for program in programs] == before


def test_steps_that_the_policy_cannot_take_end_the_start():
    policy = formula_policy(echo.SPECS, lambda proprio, keys, h: jnp.repeat(proprio[:, -1:], h, axis=1))

    def sample(params, context, keys, num_steps):
        if num_steps > 2:
            raise ValueError(f"num_steps must be at most 2, got {num_steps}.")
        return policy.method.sample(params, context, keys, num_steps)

    limited = dataclasses.replace(policy, method=policy.method._replace(sample=sample))
    with pytest.raises(ValueError, match="num_steps must be at most 2, got 3"):
        batcher.Batcher(limited, (1,), (3,)).start()


def test_an_answer_is_the_policys_own(client):
    policy = echo.echo_policy()
    observation = echo.observation(3.0, 4.0)
    np.testing.assert_allclose(client.infer(observation)["actions"], np.tile([3.0, 4.0], (4, 1)), rtol=1e-6)
    chunks = np.random.default_rng(0).normal(size=(5, 4, 2)).astype(np.float32)
    expected = chunks.sum((1, 2)) / np.asarray(policy.action_normalizer.scale)[0]
    np.testing.assert_allclose(client.energies(observation, chunks), expected, rtol=1e-4, atol=1e-9)


def test_noise_is_a_function_of_the_seed_episode_and_step_that_the_client_names(serve):
    """As in `Policy.sample_keys`, so that an episode on a robot can be computed again."""
    policy = formula_policy(echo.SPECS, lambda proprio, keys, h: jax.vmap(lambda key: jax.random.normal(key, (h, 2)))(keys))
    with serve(policy) as port, Client(f"ws://127.0.0.1:{port}") as client:
        named = {**echo.observation(1), "seed": 2**32 - 1, "episode": 5, "step": 6}
        observation = Schema(echo.SPECS, (2,), 256).parse(named, 0, 0, 0).observation
        keys = policy.sample_keys(2**32 - 1, np.array([5]), np.array([6]))
        np.testing.assert_array_equal(client.infer(named)["actions"], policy.sample_actions(observation, keys).actions[0])
        assert (client.infer({**named, "step": 7})["actions"] != client.infer(named)["actions"]).all()
        plain = echo.observation(1)
        assert (client.infer(plain)["actions"] != client.infer(plain)["actions"]).all()


def test_answers_are_never_crossed(port):
    """Twelve clients at once, each with numbers of its own, at different numbers of sampler steps."""

    def ask(number):
        with Client(f"ws://127.0.0.1:{port}") as client:
            batches = []
            for i in range(15):
                answer = client.infer({**echo.observation(100 * number + i, number), "sample_steps": 1 + number % 2, "id": i})
                assert answer["id"] == i
                assert answer["num_steps"] == 1 + number % 2
                np.testing.assert_allclose(answer["actions"], np.tile([100 * number + i, number], (4, 1)), rtol=1e-6)
                batches.append(answer["server_timing"]["batch"])
            return max(batches)

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        assert max(pool.map(ask, range(12))) > 1


@pytest.fixture
def raw(port):
    """A connection without a client's manners, its metadata read."""
    with connect(f"ws://127.0.0.1:{port}", compression=None) as connection:
        connection.recv(timeout=60)
        yield connection


def test_a_refused_request_leaves_the_connection_open(client, raw):
    with pytest.raises(ServerError, match="bad_request: proprio must have 2 axes"):
        client.infer({**echo.observation(1), "proprio": np.zeros(2, np.float32)})
    np.testing.assert_allclose(client.infer(echo.observation(5))["actions"][:, 0], 5, rtol=1e-6)
    raw.send("hello")
    assert json.loads(raw.recv(timeout=60))["message"].startswith("a request must be a binary")
    nested = []
    for _ in range(1000):
        nested = [nested]
    for fault in ({"id": nested}, {"request": np.zeros(3)}, {"timestep_mask": [[True], [True, False]]}):
        raw.send(wire.encode({**echo.observation(1), **fault}))
        assert json.loads(raw.recv(timeout=60))["error"] == "bad_request"


def test_a_refusal_carries_the_requests_id(client):
    with pytest.raises(ServerError, match="proprio must") as caught:
        client.infer({"id": 7, "proprio": np.zeros(3)})
    assert caught.value.id == 7


def test_a_fault_that_nobody_thought_of_leaves_the_connection_open(client, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Schema, "parse", lambda *_: 1 // 0)
        with pytest.raises(ServerError, match="bad_request: .* got ZeroDivisionError"):
            client.infer(echo.observation(1))
    assert client.infer(echo.observation(5))["actions"][0, 0] == pytest.approx(5)


def test_bytes_that_are_no_message_close_the_connection(raw):
    raw.send(b"\xc1")
    assert json.loads(raw.recv(timeout=60))["error"] == "bad_frame"
    with pytest.raises(ConnectionClosed) as caught:
        raw.recv(timeout=60)
    assert caught.value.rcvd.code == 1007


def test_a_frame_past_the_limit_closes_with_1009(raw):
    raw.send(b"\0" * 201_000)
    with pytest.raises(ConnectionClosed) as caught:
        raw.recv(timeout=60)
    assert caught.value.rcvd.code == 1009


def test_mutated_frames_through_a_socket_change_nothing_for_the_others(port):
    good = wire.encode(echo.observation(1.0))
    with Client(f"ws://127.0.0.1:{port}") as neighbour:
        for i, frame in enumerate(mutate(good, 60, seed=1)):
            with connect(f"ws://127.0.0.1:{port}", compression=None) as hostile:
                hostile.recv(timeout=60)
                hostile.send(frame)
                with contextlib.suppress(ConnectionClosed):
                    reply = hostile.recv(timeout=60)
                    assert "Traceback" not in (reply if isinstance(reply, str) else "")
            if i % 10 == 0:
                np.testing.assert_allclose(neighbour.infer(echo.observation(i))["actions"][:, 0], i, rtol=1e-6)


def test_health_and_metrics(port, client):
    client.infer(echo.observation(1))
    assert get(port, "/healthz") == (200, "OK\n")
    assert get(port, "/metrics")[0] == 200
    for line in ('ebt_requests_total{kind="act",outcome="done"}', "ebt_connections 1.0"):
        eventually(lambda: line in get(port, "/metrics")[1])


def test_a_page_in_a_browser_stays_out(port):
    with pytest.raises(InvalidStatus, match="403"):
        connect(f"ws://127.0.0.1:{port}", origin="http://evil.example")


def test_a_token_is_asked_for(serve):
    with serve(echo.echo_policy(), token=TOKEN, batch_sizes=(1,)) as port:
        url, twice = f"ws://127.0.0.1:{port}", [("Authorization", f"Api-Key {TOKEN}")] * 2
        for headers in ({}, {"Authorization": f"Api-Key {TOKEN}x"}, {"Authorization": TOKEN}, {"Authorization": f"Basic {TOKEN}"}, twice):
            with pytest.raises(InvalidStatus, match="401"):
                connect(url, additional_headers=headers)
        assert get(port, "/metrics")[0] == 401
        assert get(port, "/metrics", {"Authorization": f"Bearer {TOKEN}"})[0] == 200
        assert get(port, "/healthz")[0] == 200
        with Client(url, token=TOKEN) as client:
            assert client.infer(echo.observation(2))["actions"][0, 0] == pytest.approx(2)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "example.org", "::"])
def test_other_machines_need_a_token(host):
    with pytest.raises(ValueError, match="loopback address where no token is set"):
        PolicyServer(echo.echo_policy(), host)


def test_a_short_token_is_refused():
    with pytest.raises(ValueError, match="at least 16 characters, got 3"):
        PolicyServer(echo.echo_policy(), token="abc")


def test_too_many_clients_are_turned_away(serve):
    with serve(echo.echo_policy(), max_connections=2, batch_sizes=(1,)) as port:
        url = f"ws://127.0.0.1:{port}"
        with Client(url), Client(url) as second:
            with pytest.raises(InvalidStatus, match="503"):
                connect(url)
            assert second.infer(echo.observation(1))["actions"].shape == (4, 2)


def test_a_dead_clients_place_is_given_away_and_a_busy_ones_is_not(serve, monkeypatch):
    """A socket that opens and then says nothing, as after a pulled cable; a client that is at other things answers pings meanwhile."""
    monkeypatch.setattr(server, "PING_INTERVAL_S", 0.2)
    monkeypatch.setattr(server, "PING_TIMEOUT_S", 3.0)
    upgrade = (
        "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    with serve(echo.echo_policy(), batch_sizes=(1,)) as port, Client(f"ws://127.0.0.1:{port}") as busy:
        with socket.create_connection(("127.0.0.1", port)) as dead:
            dead.sendall(upgrade.encode())
            eventually(lambda: "ebt_connections 2.0" in get(port, "/metrics")[1])
            eventually(lambda: "ebt_connections 1.0" in get(port, "/metrics")[1])
        assert busy.infer(echo.observation(1))["actions"].shape == (4, 2)


def test_the_newest_observation_wins_and_deadlines_hold(serve):
    gate = echo.HeldPolicy.gate
    with serve(echo.like(echo.HeldPolicy), batch_sizes=(1,)) as port, Client(f"ws://127.0.0.1:{port}") as client:
        gate.shut()
        client.send({**echo.observation(0), "id": 0})
        gate.wait_for_a_call()  # the first is at the policy before the others come
        for i in (1, 2):
            client.send({**echo.observation(i), "id": i})
        with pytest.raises(ServerError, match="superseded") as caught:
            client.receive()
        assert caught.value.id == 1
        gate.open()
        assert [client.receive()["id"], client.receive()["id"]] == [0, 2]
        with Client(f"ws://127.0.0.1:{port}") as other:
            gate.shut()
            client.send(echo.observation(1))
            gate.wait_for_a_call()
            seconds = []
            for _ in range(5):  # while the policy is at work
                begun = time.perf_counter()
                assert get(port, "/healthz")[0] == 200
                seconds.append(time.perf_counter() - begun)
            assert min(seconds) < 0.05
            other.send({**echo.observation(1), "deadline_ms": 20})
            eventually(lambda: "ebt_waiting 1.0" in get(port, "/metrics")[1])
            time.sleep(0.03)
            gate.open()
            with pytest.raises(ServerError, match="deadline of 20 ms"):
                other.receive()
            client.receive()


def test_a_new_observation_keeps_its_clients_place():
    queue = batcher.Batcher(echo.echo_policy(), (1,), energy_sizes=(1,))
    schema, answered = Schema(echo.SPECS, (2,), 1), []
    for client in ("eager", "patient", "eager", "eager"):
        future = queue.submit(client, schema.parse(echo.observation(1), 0, 0, 0))
        future.add_done_callback(lambda future, client=client: answered.append(client) if not future.exception() else None)
    queue.start()
    eventually(lambda: len(answered) == 2)
    queue.stop()
    assert answered == ["eager", "patient"]


def test_a_late_answer_is_not_the_next_ones(serve):
    gate = echo.HeldPolicy.gate
    with serve(echo.like(echo.HeldPolicy), batch_sizes=(1,)) as port, Client(f"ws://127.0.0.1:{port}", timeout=0.3) as client:
        gate.shut()
        with pytest.raises(TimeoutError):
            client.infer(echo.observation(1))
        threading.Timer(0.05, gate.open).start()
        assert client.infer(echo.observation(2))["actions"][0, 0] == pytest.approx(2)


def test_a_server_that_stops_answers_and_refuses_before_it_closes():
    gate = echo.HeldPolicy.gate

    async def stop_while_busy():
        async with PolicyServer(echo.like(echo.HeldPolicy), port=0, batch_sizes=(1,)).running() as port:
            client = await asyncio.to_thread(Client, f"ws://127.0.0.1:{port}")
            gate.shut()
            for i in (0, 1):
                await asyncio.to_thread(client.send, {**echo.observation(i), "id": i})
                await asyncio.to_thread(gate.wait_for_a_call)
            while "ebt_waiting 1.0" not in (await asyncio.to_thread(get, port, "/metrics"))[1]:
                await asyncio.sleep(0.01)
            threading.Timer(0.1, gate.open).start()
        return client

    with asyncio.run(stop_while_busy()) as client:
        with pytest.raises(ServerError, match="stopping") as caught:
            client.receive()
        assert caught.value.id == 1
        assert client.receive()["id"] == 0


def test_a_taken_port_is_found_before_anything_is_compiled(monkeypatch):
    async def start(port):
        async with PolicyServer(echo.echo_policy(), port=port).running():
            pass

    monkeypatch.setattr(batcher.Batcher, "start", lambda queue: pytest.fail("compiled"))
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        asyncio.run(start(taken.getsockname()[1]))


def test_a_failing_policy_is_reported_without_its_traceback(serve):
    with serve(echo.like(echo.FailingPolicy), batch_sizes=(1,)) as port, Client(f"ws://127.0.0.1:{port}") as client:
        with pytest.raises(ServerError, match="internal: the policy failed") as caught:
            client.infer(echo.observation(13))
        assert "secret" not in str(caught.value)
        with pytest.raises(ServerError, match="not_finite: .* do not move"):
            client.infer(echo.observation(14))
        assert client.infer(echo.observation(15))["actions"][0, 0] == pytest.approx(15)
