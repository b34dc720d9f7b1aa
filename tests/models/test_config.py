"""Named sizes hold their promise, and wrong settings are refused by name."""

import jax
import pytest

from ebt_jax.models import VARIANTS, make_energy_model, model_variant, num_parameters, summary

MILLIONS = {"paper": (30, 32), "debug": (0.1, 1), "small": (15, 30), "base": (90, 110), "large": (270, 330), "xl": (900, 1_100)}


@pytest.mark.parametrize("name", VARIANTS)
def test_parameters_of_named_sizes(name, make_specs, make_batch):
    """With two 224x224 cameras, proprio and, but for the published network, language; counted abstractly, nothing is allocated."""
    specs = make_specs(("primary", "wrist"), "none" if name == "paper" else "embedding", size=224)
    model = make_energy_model(model_variant(name), specs)
    params = jax.eval_shape(model.init, jax.random.key(0), jax.eval_shape(lambda: make_batch(specs, 1)))
    low, high = MILLIONS[name]
    assert low * 1e6 < num_parameters(params) < high * 1e6


def test_summary_counts_every_parameter(full):
    *_, params = full
    *rows, total = summary(params).splitlines()
    assert int(total.split()[1].replace(",", "")) == num_parameters(params) == sum(int(row.split()[1].replace(",", "")) for row in rows)
    assert any(row.startswith("decoder/cross_attention ") for row in rows)


def test_unknown_names_list_the_valid_ones():
    with pytest.raises(ValueError, match=r"must be one of \['base', 'debug', 'large', 'paper', 'small', 'xl'\], got 'huge'"):
        model_variant("huge")
    with pytest.raises(ValueError, match=r"must be among \['width', .* got \['depth'\]"):
        model_variant("debug", depth=3)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"width": 66, "heads": 4}, "width must be a multiple of 4 and of heads = 4, got 66"),
        ({"heads": 0}, "heads must be at least 1, got 0"),
        ({"vision": "vgg"}, "vision must be one of .*resnet18.*, got 'vgg'"),
        ({"vision": "vit", "vision_width": 200}, "vision_width must be a multiple of 12 for a vit of this size, got 200"),
        ({"precision": "float16"}, "precision must be one of .*bfloat16.*, got 'float16'"),
    ],
)
def test_bad_settings_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        model_variant("debug", **setting)
