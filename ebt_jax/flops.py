"""Floating-point operations of a function, counted in its jaxpr: exact for matrix products and convolutions, loops included.

And how many of them a device can do in a second.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.core import ShapedArray
from jax.extend import core
from jax.interpreters import partial_eval

from ebt_jax.types import Batch, EnergyModel

PEAK_TFLOPS = {
    "NVIDIA A100": 312.0,
    "NVIDIA H100 PCIe": 756.0,
    "NVIDIA H100 NVL": 835.0,
    "NVIDIA H100": 989.5,
    "NVIDIA H200": 989.5,
    "TPU v4": 275.0,
    "TPU v5 lite": 197.0,
    "TPU v5p": 459.0,
    "TPU v5": 459.0,
    "TPU v6 lite": 918.0,
}
"""Published peak of dense bfloat16 products, by the beginning of `device_kind`."""


def peak_flops(device_kind: str) -> float | None:
    """Operations per second of one device; None where nobody has published it, as for a CPU."""
    return next((1e12 * peak for name, peak in PEAK_TFLOPS.items() if device_kind.startswith(name)), None)


def count_flops(function: Callable[..., Any], *arguments: Any) -> int:
    """Multiply-adds of matrix products and convolutions, times two; elementwise work counts for nothing, nor does what no result reads.

    Arguments may be shapes (`jax.eval_shape`). A scan counts its body once per iteration; of a `cond` the dearest branch counts.
    Raises ValueError for a while loop, whose number of iterations is not known.
    """
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    return _count(partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0])


def descent_flops(model: EnergyModel, batch: Batch, energies: float) -> int:
    """3 F_obs + 6 N F: what training through `energies` N = M K energies of every observation needs, by definition.

    F_obs is one encoding and F one energy, forward; a gradient in the parameters takes twice the forward pass, the descent's own
    gradient as much as that again. Shapes alone are read.
    """
    params = jax.eval_shape(model.init, jax.random.key(0), batch)
    context = jax.eval_shape(model.encode, params, batch.observation)
    encode = count_flops(model.encode, params, batch.observation)
    return 3 * encode + int(6 * energies) * count_flops(model.energy, params, context, batch.actions)


def _count(jaxpr: core.Jaxpr) -> int:
    return sum(_equation(equation) for equation in jaxpr.eqns)


def _equation(equation: core.JaxprEqn) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        depth = math.prod(_shape(equation.invars[0])[axis] for axis in contracted)
        return 2 * math.prod(_shape(equation.outvars[0])) * depth
    if name == "conv_general_dilated":
        kernel = _shape(equation.invars[1])
        outputs = params["dimension_numbers"].rhs_spec[0]
        # A strided convolution's gradient is one of an image with zeros between its numbers, which nobody multiplies.
        return 2 * math.prod(_shape(equation.outvars[0])) * math.prod(kernel) // kernel[outputs] // math.prod(params["lhs_dilation"])
    if name == "scan":
        return params["length"] * _count(params["jaxpr"].jaxpr)
    if name == "while":
        raise ValueError("function must not hold a while loop: the number of its iterations is not known. Count its body alone.")
    if name == "cond":
        return max(_count(branch.jaxpr) for branch in params["branches"])
    inner = (getattr(value, "jaxpr", value) for value in params.values())
    return sum(_count(jaxpr) for jaxpr in inner if isinstance(jaxpr, core.Jaxpr))


def _shape(variable: core.Var | core.Literal) -> tuple[int, ...]:
    assert isinstance(variable.aval, ShapedArray)
    return variable.aval.shape
