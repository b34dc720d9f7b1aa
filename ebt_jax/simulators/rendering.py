"""Which of MuJoCo's OpenGL backends draws on this machine, found out in a process that may die trying.

MuJoCo reads the environment variable MUJOCO_GL when it is first imported, and never again in that process.
"""

import atexit
import functools
import os
import subprocess
import sys
from typing import Any

import numpy as np
from jaxtyping import UInt8

OFF = "disable"
"""MUJOCO_GL for a process that renders nothing: MuJoCo then loads no OpenGL library at all."""

_PROBE = "import mujoco; m = mujoco.MjModel.from_xml_string('<mujoco/>'); mujoco.Renderer(m, 8, 8).update_scene(mujoco.MjData(m))"


@functools.cache
def find_backend() -> str | None:
    """The value for MUJOCO_GL that renders here, the environment's own first; None where none does. Takes a second, once."""
    chosen = os.environ.get("MUJOCO_GL", OFF)
    for backend in ("egl", "osmesa") if chosen == OFF else (chosen,):
        probe = subprocess.run([sys.executable, "-c", _PROBE], env={**os.environ, "MUJOCO_GL": backend}, capture_output=True)
        if probe.returncode == 0:
            return backend
    return None


def choose_backend(required: bool) -> None:
    """Sets MUJOCO_GL for this process: one that renders if that is required, else the environment's own or none.

    Raises RuntimeError where rendering is required and nothing renders, or MuJoCo has been imported without it.
    """
    if not required:
        os.environ.setdefault("MUJOCO_GL", OFF)
        return
    backend = find_backend()
    if backend is None:
        raise RuntimeError(
            "cameras must be rendered with OpenGL, got no working backend (tried MUJOCO_GL or else EGL and OSMesa). "
            "Install libegl1 and libegl-mesa0 (or libosmesa6), or do without cameras."
        )
    if "mujoco" in sys.modules and not can_render():
        raise RuntimeError(f"cameras must be asked for before MuJoCo is imported without them. Set MUJOCO_GL={backend} in the environment.")
    os.environ["MUJOCO_GL"] = backend


def can_render() -> bool:
    """Whether this process has imported MuJoCo with an OpenGL backend."""
    return "mujoco" in sys.modules and hasattr(sys.modules["mujoco"], "GLContext")


def make_cheap(model: Any) -> None:
    """No anti-aliasing and no shadows: a frame takes a tenth of the time. Before the model's first renderer is made."""
    model.vis.quality.offsamples = 0
    model.light_castshadow[:] = 0


class Renderers:
    """MuJoCo's renderers of one model, one a picture size, made when they are first needed."""

    def __init__(self) -> None:
        self._of_size: dict[int, Any] = {}

    def draw(self, model: Any, data: Any, camera: str, size: int, looks: Any = None) -> UInt8[np.ndarray, "{size} {size} 3"]:
        """What `camera` of the model sees.

        Args:
          looks: `mujoco.MjvOption`; MuJoCo's own where None.
        """
        import mujoco

        if size not in self._of_size:
            self._of_size[size] = mujoco.Renderer(model, size, size)
            atexit.unregister(self.close)
            atexit.register(self.close)  # after MuJoCo's own, so that it comes before it
        self._of_size[size].update_scene(data, camera, looks)
        return self._of_size[size].render()

    def close(self) -> None:
        """Before another model takes this one's place."""
        for renderer in self._of_size.values():
            renderer.close()
        self._of_size = {}
