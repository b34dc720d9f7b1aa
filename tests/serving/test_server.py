"""A server and its clients, over real sockets: answers are never crossed, faults are named, strangers stay out."""

import concurrent.futures
import contextlib
import http.client
import json
import time

import echo
import jax
import numpy as np
import pytest
from formulas import formula_policy
from mutations import mutate
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from ebt_jax.serving import wire
from ebt_jax.serving.client import Client, ServerError
from ebt_jax.serving.schema import Schema
from ebt_jax.serving.server import PolicyServer

TOKEN = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def port(serve):
    with serve(echo.echo_policy(), max_frame_bytes=200_000) as port:
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
        observation = Schema(echo.SPECS, 9, True).parse(named, 0, 0, 0).observation
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
        url = f"ws://127.0.0.1:{port}"
        for headers in ({}, {"Authorization": f"Api-Key {TOKEN}x"}, {"Authorization": TOKEN}, {"Authorization": f"Basic {TOKEN}"}):
            with pytest.raises(InvalidStatus, match="401"):
                connect(url, additional_headers=headers)
        assert get(port, "/metrics")[0] == 401
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
            assert get(port, "/healthz")[0] == 200  # while the policy is at work
            other.send({**echo.observation(1), "deadline_ms": 20})
            eventually(lambda: "ebt_waiting 1.0" in get(port, "/metrics")[1])
            time.sleep(0.03)
            gate.open()
            with pytest.raises(ServerError, match="deadline of 20 ms"):
                other.receive()
            client.receive()


def test_a_failing_policy_is_reported_without_its_traceback(serve):
    with serve(echo.like(echo.FailingPolicy), batch_sizes=(1,)) as port, Client(f"ws://127.0.0.1:{port}") as client:
        with pytest.raises(ServerError, match="internal: the policy failed") as caught:
            client.infer(echo.observation(13))
        assert "secret" not in str(caught.value)
        with pytest.raises(ServerError, match="not_finite: .* do not move"):
            client.infer(echo.observation(14))
        assert client.infer(echo.observation(15))["actions"][0, 0] == pytest.approx(15)
