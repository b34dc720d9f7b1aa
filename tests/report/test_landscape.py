"""The plane holds its three chunks exactly, distances are true, and a quadratic energy is drawn as a paraboloid."""

import numpy as np
import pytest

from ebt_jax.report.landscape import Plane, energy_slice, landscape, plane_through


@pytest.fixture
def chunks():
    return np.random.default_rng(0).normal(size=(3, 6, 4))


def rms(chunk):
    return np.sqrt(np.mean(chunk**2))


def test_plane_holds_its_three_chunks(chunks):
    plane = plane_through(*chunks)
    coordinates = plane.project(chunks)
    np.testing.assert_allclose(plane.at(coordinates), chunks, atol=1e-12)
    np.testing.assert_allclose(coordinates[:2], [[0, 0], [rms(chunks[1] - chunks[0]), 0]], atol=1e-12)
    assert coordinates[2, 1] > 0


def test_distances_in_the_picture_are_true(chunks):
    first, second = plane_through(*chunks).project(chunks[1:])
    np.testing.assert_allclose(np.linalg.norm(first - second), rms(chunks[1] - chunks[2]))


def test_plane_where_a_chunk_adds_no_direction(chunks):
    for others in ((chunks[0], chunks[0]), (chunks[1], chunks[0]), (chunks[1], 2 * chunks[1] - chunks[0])):
        plane = plane_through(chunks[0], *others)
        gram = [[np.mean(a * b) for a in plane[1:]] for b in plane[1:]]
        np.testing.assert_allclose(gram, np.eye(2), atol=1e-12)
        np.testing.assert_allclose(plane.at(plane.project(np.stack(others))), others, atol=1e-12)


def test_slice_of_a_quadratic(chunks):
    sizes = []

    def energy(actions):
        sizes.append(actions.shape)
        return np.mean((actions - chunks[0]) ** 2, axis=(1, 2))

    part = energy_slice(energy, plane_through(*chunks), (-1.0, 2.0), (-3.0, 1.0), resolution=13, batch_size=50)
    np.testing.assert_allclose(part.energy, part.x[None, :] ** 2 + part.y[:, None] ** 2, atol=1e-5)
    assert sizes == [(50, 6, 4)] * 4


def test_the_path_is_drawn_to_the_returned_chunk(chunks):
    start, demonstration, returned = chunks[0], 0.1 * chunks[1], 0.1 * chunks[2]
    path = np.stack([start, (start + returned) / 2, returned])
    figure = landscape(lambda actions: np.sum((actions - demonstration) ** 2, axis=(1, 2)), path, demonstration, resolution=11)
    whole = figure.axes[0]
    far = rms(start - returned)
    np.testing.assert_allclose(whole.get_lines()[0].get_xydata(), [[far, 0], [far / 2, 0], [0, 0]], atol=1e-9)
    marks = {mark.get_label(): mark.get_offsets()[0] for mark in whole.collections if not str(mark.get_label()).startswith("_")}
    np.testing.assert_allclose(np.linalg.norm(marks["demonstration"]), rms(demonstration - returned))
    np.testing.assert_allclose(marks["returned chunk"], [0, 0], atol=1e-9)
    low, high = whole.get_xlim()
    assert low < 0 < far < high


def test_projection_is_the_nearest_point(chunks):
    plane = Plane(np.zeros((6, 4)), *plane_through(*chunks)[1:])
    beside = chunks[:1]
    foot = plane.at(plane.project(beside))
    for axis in plane[1:]:
        np.testing.assert_allclose(np.mean((beside - foot) * axis), 0, atol=1e-12)
