"""The lazy coreset is the plain greedy one, centre by centre."""

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.detectors.memory_bank import coreset, threads
from gateway.detectors.memory_bank.coreset import coreset_size, k_center_greedy
from gateway.detectors.memory_bank.token_file import TokenFile


def plain_greedy(tokens, n_centres, seed):
    """Every distance to every centre, in float64."""
    tokens = tokens.astype(np.float64)
    farthest = int(np.random.default_rng(seed).integers(len(tokens)))
    nearest = np.full(len(tokens), np.inf)
    indices = []
    while len(indices) < n_centres and nearest[farthest] > 1e-6:
        indices.append(farthest)
        nearest = np.minimum(nearest, ((tokens - tokens[farthest]) ** 2).sum(axis=1))
        farthest = int(nearest.argmax())
    return indices, float(np.sqrt(nearest.max()))


def unit(raw):
    return (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float16)


def clustered(rng, n, dim):
    centres = rng.normal(size=(12, dim))
    return unit(4 + centres[rng.integers(12, size=n)] + 0.2 * rng.normal(size=(n, dim)))


def noise(rng, n, dim):
    return unit(rng.normal(size=(n, dim)))


def images_twice(rng, n, dim):
    half = clustered(rng, -(-n // 2), dim)
    return np.concatenate([half, half])[:n]


def few_different(rng, n, dim):
    return clustered(rng, 5, dim)[rng.integers(5, size=n)]


def one_many_times(rng, n, dim):
    return np.repeat(clustered(rng, 1, dim), n, axis=0)


def corners(rng, n, dim):
    """Corners of a cube: every distance ties with many."""
    return (rng.choice([-1, 1], size=(n, dim)) / 4).astype(np.float16)


def hardly_different(rng, n, dim):
    return (clustered(rng, 1, dim) + 1e-3 * rng.normal(size=(n, dim))).astype(np.float16)


FAMILIES = [clustered, noise, images_twice, few_different, one_many_times, corners, hardly_different]


@settings(max_examples=150, deadline=None)
@given(
    family=st.sampled_from(FAMILIES),
    n=st.sampled_from([1, 2, 3, 50, 400]),
    dim=st.sampled_from([4, 16, 48]),
    share=st.sampled_from([0.01, 0.1, 0.5, 1.0]),
    pool=st.sampled_from([1, 7, 64, 1024]),
    kept=st.sampled_from([1, 30, 10_000]),
    seed=st.integers(0, 2**32 - 1),
)
def test_centres_are_those_of_the_plain_algorithm(family, n, dim, share, pool, kept, seed):
    tokens = family(np.random.default_rng(seed), n, dim)
    n_centres = coreset_size(n, share)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coreset, "_POOL", (pool, n + 1))
        patch.setattr(coreset, "_KEPT", kept)
        found = k_center_greedy(tokens, n_centres, seed)
    indices, radius = plain_greedy(tokens, n_centres, seed)
    assert found.indices.tolist() == indices
    assert found.covering_radius == pytest.approx(radius, abs=1e-9)


def test_centres_are_those_of_the_plain_algorithm_for_many_tokens():
    tokens = clustered(np.random.default_rng(1), 6000, 96)
    found = k_center_greedy(tokens, 300, 5)
    assert found.indices.tolist() == plain_greedy(tokens, 300, 5)[0]


def test_threads_change_nothing():
    tokens = clustered(np.random.default_rng(2), 5000, 64)
    alone = k_center_greedy(tokens, 200, 0)
    threads.set_threads(3)
    try:
        together = k_center_greedy(tokens, 200, 0)
    finally:
        threads.set_threads(1)
    assert together.indices.tolist() == alone.indices.tolist()
    assert together.covering_radius == alone.covering_radius


def test_tokens_in_a_file_give_the_same_coreset_as_an_array(tmp_path):
    tokens = clustered(np.random.default_rng(3), 2000, 32).astype(np.float16)
    images = tokens.reshape(20, 100, 32)
    with TokenFile(tmp_path, 100, 32) as file:
        places = [file.append(images[i]) for i in (3, *range(3), *range(4, 20))]  # the fourth image first
        in_order = file.images([*places[1:4], places[0], *places[4:]])
        found, expected = k_center_greedy(in_order.rows(), 40, 0), k_center_greedy(tokens, 40, 0)
    assert found.indices.tolist() == expected.indices.tolist()
    assert found.covering_radius == expected.covering_radius


def test_no_more_centres_than_tokens_differ():
    tokens = few_different(np.random.default_rng(4), 3000, 32)
    found = k_center_greedy(tokens, 60, 0)
    assert len(found.indices) == 5
    assert found.covering_radius == 0


def test_long_runs_say_how_far_they_are(monkeypatch, caplog):
    monkeypatch.setattr(coreset, "_LOG_EVERY_S", 0.0)
    with caplog.at_level(logging.INFO, coreset.__name__):
        k_center_greedy(noise(np.random.default_rng(5), 500, 16), 100, 0)
    assert "of 100 centres" in caplog.text


def test_rate_is_rounded_to_at_least_one_centre():
    assert [coreset_size(36450, 0.02), coreset_size(10, 0.01), coreset_size(7, 1.0)] == [729, 1, 7]
