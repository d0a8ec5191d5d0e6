"""Every search gives the distances of a float64 reference, whatever the bank."""

import importlib.util
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.detectors.memory_bank import threads
from gateway.detectors.memory_bank.search.backend import build_search, choose_backend, search_name
from gateway.detectors.memory_bank.search.faiss_search import FaissSearch, gpu_available
from gateway.detectors.memory_bank.search.projected import ProjectedSearch
from gateway.detectors.memory_bank.search.projection import Projection
from gateway.store.arrays import as_float32

BACKENDS = [
    "numpy",
    pytest.param("faiss", marks=pytest.mark.skipif(not importlib.util.find_spec("faiss"), reason="no FAISS")),
    pytest.param(
        "sklearn", marks=pytest.mark.skipif(not importlib.util.find_spec("sklearn"), reason="no scikit-learn")
    ),
    pytest.param("faiss-gpu", marks=pytest.mark.skipif(not gpu_available(), reason="no GPU that FAISS finds")),
]


def reference(bank, queries, k):
    """Float64 norms of differences; blocks, so that no [Q, M, D] is held."""
    bank = bank.astype(np.float64)
    rows = [np.sqrt(((bank - query) ** 2).sum(axis=1)) for query in queries.astype(np.float64)]
    return np.sort(rows, axis=1)[:, :k]


def tokens_like(rng, n, dim):
    """Unit vectors about a mean, near a plane of few dimensions: what tokens of one ROI are."""
    plane = np.random.default_rng(7).normal(size=(8, dim))
    raw = 3 + rng.normal(size=(n, 8)) @ plane + 0.3 * rng.normal(size=(n, dim))
    return (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float16)


def noise(rng, n, dim):
    return rng.normal(size=(n, dim)).astype(np.float16)


def few_different(rng, n, dim):
    return tokens_like(rng, 5, dim)[rng.integers(5, size=n)]


def one_many_times(rng, n, dim):
    return np.repeat(tokens_like(rng, 1, dim), n, axis=0)


def zeros_among(rng, n, dim):
    tokens = tokens_like(rng, n, dim)
    tokens[::3] = 0
    return tokens


def lattice(rng, n, dim):
    """Whole numbers: distances tie everywhere."""
    return rng.integers(-1, 2, size=(n, dim)).astype(np.float16)


def barely_different(rng, n, dim):
    """Rows one step of half precision apart."""
    tokens = np.repeat(tokens_like(rng, 1, dim), n, axis=0)
    at = rng.integers(dim, size=n)
    tokens[np.arange(n), at] = np.nextafter(tokens[np.arange(n), at], np.float16(9))
    return tokens


def one_far_out(rng, n, dim):
    tokens = tokens_like(rng, n, dim)
    tokens[0] *= np.float16(5000)
    return tokens


FAMILIES = [tokens_like, noise, few_different, one_many_times, zeros_among, lattice, barely_different]


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=60, deadline=None)
@given(
    family=st.sampled_from(FAMILIES),
    size=st.sampled_from([1, 2, 3, 15, 16, 17, 100, 257, 700]),
    dim=st.sampled_from([3, 16, 70, 96]),
    n_queries=st.sampled_from([1, 2, 40]),
    k=st.integers(1, 100),
    seed=st.integers(0, 2**32 - 1),
)
def test_distances_are_those_of_the_reference(backend, family, size, dim, n_queries, k, seed):
    rng = np.random.default_rng(seed)
    bank = family(rng, size, dim)
    queries = np.concatenate(
        [family(rng, n_queries, dim), bank[rng.integers(size, size=2)], np.zeros((1, dim), np.float16)]
    ).astype(np.float32)
    k = min(k, size)
    found = build_search(bank, backend).search(queries, k)
    assert found.shape == (len(queries), k)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, reference(bank, queries, k), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [1, 2, 700, 2000, 10_000])
@pytest.mark.parametrize("k", [1, 3, 100])
def test_distances_are_right_for_every_size_of_bank(backend, size, k):
    rng = np.random.default_rng(size + k)
    bank = tokens_like(rng, size, 384)
    queries = np.concatenate([tokens_like(rng, 70, 384), bank[:3]]).astype(np.float32)
    k = min(k, size)
    found = build_search(bank, backend).search(queries, k)
    np.testing.assert_allclose(found, reference(bank, queries, k), atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_token_of_the_bank_is_at_distance_0_exactly(backend):
    bank = tokens_like(np.random.default_rng(0), 500, 768)
    assert not build_search(bank, backend).search(bank.astype(np.float32), 1).any()


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=30, deadline=None)
@given(family=st.sampled_from(FAMILIES), size=st.sampled_from([1, 2, 17, 1200]), seed=st.integers(0, 2**32 - 1))
def test_the_nearest_row_is_at_the_distance_that_search_gives(backend, family, size, seed):
    rng = np.random.default_rng(seed)
    bank = family(rng, size, 70)
    search = build_search(bank, backend)
    for query in np.concatenate([family(rng, 3, 70), bank[:1]]).astype(np.float32):
        row, distance = search.nearest(query)
        assert distance == pytest.approx(np.linalg.norm(bank[row].astype(np.float64) - query), rel=1e-6, abs=1e-6)
        assert distance == pytest.approx(search.search(query[None], 1)[0, 0], rel=1e-6, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(family=st.sampled_from([*FAMILIES, one_far_out]), scale=st.sampled_from([1e-30, 1e-3, 1e4, 1e18, 1e30]))
def test_any_norm_is_measured(family, scale):
    rng = np.random.default_rng(0)
    bank = family(rng, 300, 32)
    queries = (family(rng, 10, 32).astype(np.float64) * scale).astype(np.float32)
    found = ProjectedSearch(bank).search(queries, 2)
    np.testing.assert_allclose(found, reference(bank, queries, 2), rtol=1e-5, atol=1e-5)


def test_a_query_that_is_not_a_number_has_no_distance_and_leaves_others_alone():
    bank = tokens_like(np.random.default_rng(0), 300, 32)
    queries = bank[:3].astype(np.float32)
    queries[1] = np.nan
    found = ProjectedSearch(bank).search(queries, 1)[:, 0]
    assert np.isnan(found[1])
    assert found[0] == found[2] == 0


def test_excluded_rows_do_not_count():
    rng = np.random.default_rng(3)
    bank = tokens_like(rng, 900, 96)
    queries = bank[:200].astype(np.float32)
    some = np.flatnonzero(rng.random(900) < 0.4)
    all_but_a_group = np.flatnonzero(np.arange(900) % 57 != 5)  # 912 with padding, in groups of 16
    for left_out in (some, all_but_a_group):
        for k in (1, 3, 15, 100):
            k = min(k, 900 - len(left_out))
            found = ProjectedSearch(bank).search(queries, k, left_out)
            np.testing.assert_allclose(found, reference(np.delete(bank, left_out, axis=0), queries, k), atol=1e-5)


def test_few_directions_suffice_for_tokens_but_not_for_noise():
    rng = np.random.default_rng(0)
    assert Projection.of(tokens_like(rng, 1000, 384)).directions.shape[1] < 384
    assert Projection.of(noise(rng, 1000, 384)).directions.shape[1] == 384


def test_concurrent_searches_give_the_distances_of_sequential_ones():
    rng = np.random.default_rng(0)
    search = ProjectedSearch(tokens_like(rng, 2000, 96))
    queries = [tokens_like(rng, 300, 96).astype(np.float32) for _ in range(12)]
    alone = [search.search(q, 1) for q in queries]
    threads.set_threads(3)
    try:
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda q: search.search(q, 1), queries))
    finally:
        threads.set_threads(1)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_no_queries_have_no_distances():
    assert ProjectedSearch(np.eye(4, dtype=np.float16)).search(np.empty((0, 4), np.float32), 2).shape == (0, 2)


def test_memory_is_what_the_arrays_hold():
    projection = Projection.of(tokens_like(np.random.default_rng(0), 1000, 384))
    held = projection.directions.nbytes + projection.shift.nbytes + projection.columns.nbytes
    assert projection.n_bytes == held
    assert held < 1000 * 384 * 2


@pytest.mark.parametrize("family", [tokens_like, noise, one_many_times, one_far_out])
def test_a_stored_projection_gives_the_same_distances(family):
    rng = np.random.default_rng(0)
    bank = family(rng, 700, 96)
    queries = family(rng, 60, 96).astype(np.float32)
    stored = Projection.from_bytes(Projection.of(bank).to_bytes(), bank)
    found = ProjectedSearch(bank, stored).search(queries, 3)
    np.testing.assert_array_equal(found, ProjectedSearch(bank).search(queries, 3))


def test_a_projection_of_a_bank_of_another_size_is_refused():
    bank = tokens_like(np.random.default_rng(0), 700, 96)
    data = Projection.of(bank).to_bytes()
    for other in (bank[:600], bank[:, :95]):
        with pytest.raises(ValueError, match="expected float32"):
            Projection.from_bytes(data, other)


def test_half_precision_is_converted_exactly():
    every = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(256, 256)
    np.testing.assert_array_equal(as_float32(every), every.astype(np.float32))


def test_a_faiss_index_is_restored_from_its_bytes():
    pytest.importorskip("faiss")
    bank = tokens_like(np.random.default_rng(0), 50, 32)
    search = FaissSearch.from_bytes(FaissSearch.build(bank).to_bytes())
    np.testing.assert_array_equal(search.bank, bank.astype(np.float32))
    with pytest.raises(ValueError, match="not a FAISS index"):
        FaissSearch.from_bytes(b"nothing of the kind, at all")


def test_a_backend_is_used_or_refused_as_the_setting_says(monkeypatch):
    assert search_name("numpy") == "numpy-projected"
    assert choose_backend("auto") in ("numpy", "faiss-gpu")
    monkeypatch.setattr("gateway.detectors.memory_bank.search.backend.gpu_available", lambda: False)
    assert choose_backend("auto") == "numpy"
    with pytest.raises(RuntimeError, match="GPU"):
        build_search(np.eye(3, dtype=np.float16), "faiss-gpu")
    monkeypatch.setattr("gateway.detectors.memory_bank.search.backend.faiss_available", lambda: False)
    with pytest.raises(RuntimeError, match="not installed"):
        choose_backend("faiss")
