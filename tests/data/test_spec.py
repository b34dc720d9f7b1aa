"""A dataset's spec survives its file, and says what is wrong with one that does not fit together."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from ebt_jax.data.spec import Conversion, DatasetSpec
from ebt_jax.data.standardize import convert
from ebt_jax.specs import ActionDimension, Dimension

SPEC = DatasetSpec(
    name="reach",
    action_keys=("action",),
    action=(ActionDimension("x", "eef_delta", "m"), ActionDimension("gripper", "gripper", "", 0.0, 1.0)),
    proprio_keys=("observation/state",),
    proprio=(Dimension("x", "m"),),
    cameras={"primary": "observation/image"},
    language_key="language_instruction",
    embedding_key="language_embedding",
    embedding_size=512,
    action_frame="base",
    control_rate_hz=5.0,
    source="made up",
    action_conversions=(Conversion("scale", (0,), 0.001), Conversion("closed", (1,))),
)


def test_json_round_trip_is_exact():
    assert DatasetSpec.from_json(SPEC.to_json()) == SPEC


def test_optional_fields_may_be_left_out():
    text = json.dumps({"name": "d", "action_keys": ["action"], "action": [{"name": "x", "kind": "eef_delta", "unit": "m"}]})
    spec = DatasetSpec.from_json(text)
    assert spec.proprio == ()
    assert spec.cameras == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, "name must not be empty"),
        ({"action_keys": ()}, "action_keys"),
        ({"proprio": ()}, "proprio_keys and proprio"),
        ({"cameras": {"front": "observation/image"}}, "cameras must be among.*front"),
        ({"cameras": {"primary": ""}}, "feature keys must not be empty"),
        ({"embedding_size": 0}, "embedding_key and embedding_size"),
        ({"action": (SPEC.action[0], SPEC.action[0])}, "action dimensions must have distinct names"),
        ({"proprio": (Dimension("gripper", ""), Dimension("gripper", ""))}, "proprio dimensions must have distinct names"),
    ],
)
def test_faults_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SPEC, **change)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": "d", "action_keys": ["a"], "action": [], "colour": 1}', "not json"])
def test_text_that_is_no_spec_is_refused(text):
    with pytest.raises(ValueError, match=r"ebt_spec\.json must be JSON"):
        DatasetSpec.from_json(text)


def test_the_example_of_the_documentation_is_a_spec():
    page = (pathlib.Path(__file__).parents[2] / "docs" / "data.md").read_text()
    spec = DatasetSpec.from_json(page.split("```json\n")[1].split("```")[0])
    assert spec.name == "my_robot"
    assert set(json.loads(spec.to_json())) == {field.name for field in dataclasses.fields(DatasetSpec)}


@pytest.mark.parametrize(
    ("what", "columns", "message"),
    [("scale", (0, 1), "must have a factor `by` other than 1"), ("wrap", (0, 0), "must name each column once")],
)
def test_a_conversion_that_does_nothing_or_twice_the_same_is_refused(what, columns, message):
    with pytest.raises(ValueError, match=message):
        Conversion(what, columns)


def test_showing_less_of_the_state_keeps_what_came_before():
    state = tuple(Dimension(name, "m") for name in ("hand_x", "hand_y", "block_x"))
    spec = dataclasses.replace(SPEC, proprio=state, proprio_conversions=(Conversion("scale", (0, 1, 2), 0.001),))
    assert spec.show(("*",)) is spec
    hands = spec.show(("hand_*",))
    assert hands.proprio == state[:2]
    values = np.array([[1.0, 2.0, 3.0]])
    np.testing.assert_allclose(convert(values, hands.proprio_conversions), [[0.001, 0.002]])
    assert spec.show(()) == dataclasses.replace(spec, proprio_keys=(), proprio=(), proprio_conversions=())
