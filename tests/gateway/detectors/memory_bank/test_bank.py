"""A bank keeps where its tokens came from, and an OK image is measured against what the others gave."""

import threading

import numpy as np
import pytest

from gateway.detectors.memory_bank import threads
from gateway.detectors.memory_bank.bank import build_memory_bank, leave_one_out_distances, patch_distances
from gateway.detectors.memory_bank.search.backend import build_search
from gateway.detectors.memory_bank.token_file import ArrayTokens


def tokens_of(n_images, n_tokens, dim, seed=0):
    raw = 2 + np.random.default_rng(seed).normal(size=(n_images, n_tokens, dim))
    return (raw / np.linalg.norm(raw, axis=-1, keepdims=True)).astype(np.float16)


def test_bank_says_where_each_token_came_from():
    tokens = tokens_of(6, 50, 24)
    bank = build_memory_bank(tokens, 0.1, 0)
    assert len(bank) == 30
    np.testing.assert_array_equal(bank.tokens, tokens[bank.image_index, bank.token_index])


def test_a_rate_of_one_keeps_every_token_also_equal_ones():
    tokens = np.concatenate([tokens_of(2, 20, 24), tokens_of(1, 20, 24)])  # the first image twice
    inside = np.arange(60).reshape(3, 20) % 2 == 0
    bank = build_memory_bank(tokens, 1, 0, inside)
    np.testing.assert_array_equal(bank.tokens, tokens[inside])
    np.testing.assert_array_equal(bank.image_index, np.repeat([0, 1, 2], 10))
    assert bank.covering_radius == 0


def test_every_token_lies_within_the_covering_radius():
    tokens = tokens_of(4, 60, 24)
    bank = build_memory_bank(tokens, 0.2, 3)
    distances = patch_distances(build_search(bank.tokens), tokens.reshape(-1, 24).astype(np.float32), 1)
    assert distances.max() == pytest.approx(bank.covering_radius, abs=1e-6)


@pytest.mark.parametrize("k", [1, 3])
def test_own_centres_do_not_count_when_one_is_left_out(k):
    tokens = tokens_of(5, 80, 24)
    bank = build_memory_bank(tokens, 0.15, 0)
    found = leave_one_out_distances(bank, tokens, k)
    for image in range(5):
        others = bank.tokens[bank.image_index != image].astype(np.float64)
        all_distances = np.linalg.norm(tokens[image].astype(np.float64)[:, None] - others, axis=2)
        expected = np.sort(all_distances, axis=1)[:, :k].mean(axis=1)
        np.testing.assert_allclose(found[image], expected, atol=1e-5)


def test_as_many_neighbours_as_the_others_have_are_measured():
    tokens = tokens_of(2, 40, 24)
    bank = build_memory_bank(tokens, 0.1, 0)
    assert np.isfinite(leave_one_out_distances(bank, tokens, 100)).all()


def test_nothing_is_left_out_of_a_bank_of_one_image():
    tokens = tokens_of(1, 40, 24)
    assert leave_one_out_distances(build_memory_bank(tokens, 0.5, 0), tokens, 1) is None


def test_images_of_many_tokens_are_measured_one_after_another():
    """The threads share the tokens of one image, so that they do not hold an image each."""

    class Watched(ArrayTokens):
        def image(self, index):
            by.add(threading.current_thread())
            return super().image(index)

    by = set()
    tokens = tokens_of(4, 2048, 8)
    bank = build_memory_bank(tokens, 0.02, 0)
    expected = leave_one_out_distances(bank, tokens, 1)
    threads.set_threads(3)
    try:
        found = leave_one_out_distances(bank, Watched(tokens), 1)
    finally:
        threads.set_threads(1)
    assert by == {threading.current_thread()}
    np.testing.assert_array_equal(found, expected)
