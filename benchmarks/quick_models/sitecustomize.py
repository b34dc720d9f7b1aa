"""With this folder on PYTHONPATH, gymnasium's MuJoCo environments copy a compiled model in place of compiling it at every episode.

For frozen checkouts, whose code must not change: `ebt_jax.simulators.metaworld` does the same since. Python imports a module of this
name when it starts. An episode keeps its bits (`tests/simulators/test_metaworld.py`).
"""

import copy
import functools
import importlib.abc
import importlib.machinery
import sys

MODULE = "gymnasium.envs.mujoco.mujoco_env"


class _Quicken(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads that module as ever, then puts a function of ours in the place of one of its own."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        self._loader, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        import mujoco

        self._loader.exec_module(module)
        compiled = functools.cache(mujoco.MjModel.from_xml_path)

        def initialize(self):
            model = copy.copy(compiled(self.fullpath))
            offscreen = model.vis.global_
            offscreen.offwidth, offscreen.offheight = max(offscreen.offwidth, self.width), max(offscreen.offheight, self.height)
            return model, mujoco.MjData(model)

        module.MujocoEnv._initialize_simulation = initialize


sys.meta_path.insert(0, _Quicken())
