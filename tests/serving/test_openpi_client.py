"""openpi's published client, unchanged, in an environment of its own (it wants numpy < 2), against our server."""

import json
import pathlib
import subprocess
import sys

import echo
import numpy as np
import pytest

CLIENT = """
import json, sys
import numpy as np
from openpi_client.websocket_client_policy import WebsocketClientPolicy
client = WebsocketClientPolicy("127.0.0.1", int(sys.argv[1]), api_key=sys.argv[2])
metadata = client.get_server_metadata()
example = client.infer(metadata["example_observation"])
observation = {"proprio": np.array([[0, 0], [3, 4]], np.float32), "prompt": "push"}
answer = client.infer(observation)
try:
    client.infer({"proprio": np.zeros(3)})
    refused = ""
except RuntimeError as error:
    refused = str(error)
print(json.dumps({
    "numpy": np.__version__, "shape": example["actions"].shape, "actions": answer["actions"].tolist(),
    "energy": answer["energy"], "timing": sorted(answer["server_timing"]), "refused": refused,
}))
"""


@pytest.fixture(scope="module")
def openpi_python(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("openpi")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    # dm-tree, which it asks for too, is used by none of its modules that talk to a server.
    wanted = ["openpi-client==0.1.2", "numpy<2", "msgpack", "websockets", "typing_extensions"]
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", *wanted]
    subprocess.run(install, check=True)
    return python


@pytest.mark.slow
def test_openpis_own_client_talks_to_our_server(openpi_python, serve):
    token = "correct-horse-battery-staple"
    with serve(echo.echo_policy(), token=token, batch_sizes=(1,)) as port:
        done = subprocess.run([openpi_python, "-c", CLIENT, str(port), token], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["numpy"].startswith("1.")
    assert answer["shape"] == [4, 2]
    np.testing.assert_allclose(answer["actions"], np.tile([3.0, 4.0], (4, 1)), rtol=1e-6)
    assert {"infer_ms", "total_ms"} <= set(answer["timing"])
    assert "bad_request" in answer["refused"]
