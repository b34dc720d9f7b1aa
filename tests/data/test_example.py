"""The wire-format reader finds what protobuf wrote, and nothing in bytes that are no Example."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

from ebt_jax.data import example

FLOATS = st.lists(st.floats(width=32, allow_nan=False), max_size=20)
INTS = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20)
BYTES = st.lists(st.binary(max_size=300), max_size=5)
FEATURES = st.dictionaries(
    st.text(max_size=10), st.one_of(FLOATS.map(lambda v: ("float", v)), INTS.map(lambda v: ("int", v)), BYTES.map(lambda v: ("bytes", v)))
)


def _serialize(features) -> bytes:
    make = {
        "float": lambda v: tf_feature_pb2.Feature(float_list=tf_feature_pb2.FloatList(value=v)),
        "int": lambda v: tf_feature_pb2.Feature(int64_list=tf_feature_pb2.Int64List(value=v)),
        "bytes": lambda v: tf_feature_pb2.Feature(bytes_list=tf_feature_pb2.BytesList(value=v)),
    }
    tree = {name: make[kind](values) for name, (kind, values) in features.items()}
    return tf_example_pb2.Example(features=tf_feature_pb2.Features(feature=tree)).SerializeToString()


@hypothesis.given(FEATURES)
@hypothesis.settings(deadline=None)
def test_reads_what_protobuf_wrote(features):
    record = _serialize(features)
    found = example.parse(record)
    assert {name: values.kind for name, values in found.items()} == {name: kind for name, (kind, _) in features.items()}
    for name, (kind, values) in features.items():
        if kind == "float":
            np.testing.assert_array_equal(example.floats(record, found[name]), np.float32(values))
        elif kind == "int":
            np.testing.assert_array_equal(example.ints(record, found[name]), np.int64(values))
        else:
            assert [record[at : at + size] for at, size in example.spans(record, found[name])] == values


def test_values_are_views_of_the_record():
    record = _serialize({"action": ("float", [1.0, 2.0])})
    values = example.floats(record, example.parse(record)["action"])
    assert values.base is not None
    assert not values.flags.writeable


@hypothesis.given(st.integers(1, 60))
def test_a_cut_record_is_refused(cut):
    record = _serialize({"image": ("bytes", [b"x" * 50, b"y" * 50])})
    with pytest.raises(ValueError, match=r"tf\.train\.Example"):
        example.parse(record[:-cut])


def test_other_bytes_are_refused():
    with pytest.raises(ValueError, match="wire type 7"):
        example.parse(b"\xff\xff\x01 this is no protobuf")


def test_numbers_in_two_pieces_are_refused():
    record = b"\x0a\x04\x01\x02\x03\x04" * 2
    with pytest.raises(ValueError, match="packed in one piece"):
        example.floats(record, example.Values("float", 0, len(record)))
