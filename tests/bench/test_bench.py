"""The arithmetic of the benchmarks, and that every sub-command starts."""

import os

import numpy as np
import pytest

from bench.coreset import covering_radius, plain_greedy
from bench.report import interleave, spread, table
from bench.tokens import drawn_surface
from gateway.detectors.memory_bank.coreset import k_center_greedy
from tests.fork_server import fork


@pytest.mark.parametrize("arguments", [["--help"], ["knn", "--help"], ["detectors", "--help"], ["lines", "--help"]])
def test_every_sub_command_explains_itself(arguments, tmp_path):
    assert fork(["bench", *arguments], dict(os.environ), tmp_path / "said").wait() == 0
    assert "usage: scripts/bench" in (tmp_path / "said").read_text()


def test_contenders_take_turns_after_warming_up():
    calls = []
    contenders = {name: lambda turn, name=name: calls.append((turn, name)) for name in "ab"}
    seconds = interleave(contenders, 2, pause_s=0)
    assert calls == [(-1, "a"), (-1, "b"), (0, "a"), (0, "b"), (1, "a"), (1, "b")]
    assert seconds["a"].shape == (2,)


def test_ratio_is_of_the_same_round():
    measured = spread(np.array([0.1, 0.2, 0.4]), np.array([0.2, 0.4, 0.8]))
    assert measured == {"ms": 200.0, "ms_q1": 150.0, "ms_q3": 300.0, "times_faster": 2.0}


def test_table_lines_up():
    assert table([{"k": 1, "ms": 2.5}, {"k": 10}]).splitlines() == [" k   ms", " 1  2.5", "10     "]


def test_reference_of_the_coreset_agrees_with_it():
    tokens = np.random.default_rng(0).normal(size=(800, 32))
    tokens = (tokens / np.linalg.norm(tokens, axis=1, keepdims=True)).astype(np.float16)
    ours = k_center_greedy(tokens, 40, 0)
    assert plain_greedy(tokens.astype(np.float32), 40).tolist() == ours.indices.tolist()
    assert covering_radius(tokens, ours.indices) == pytest.approx(ours.covering_radius, abs=1e-6)


def test_drawn_images_differ():
    first, second = drawn_surface(0), drawn_surface(1)
    assert first.shape == (384, 384, 3)
    assert (first != second).mean() > 0.5
