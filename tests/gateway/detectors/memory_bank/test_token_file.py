import numpy as np
import pytest

from gateway.detectors.memory_bank.bank import build_memory_bank, leave_one_out_distances
from gateway.detectors.memory_bank.token_file import ArrayTokens, TokenFile

# Image i holds the tokens [10 i, 10 i + 1], [10 i + 2, 10 i + 3], [10 i + 4, 10 i + 5].
IMAGES = (np.arange(6).reshape(3, 2) + 10 * np.arange(4)[:, None, None]).astype(np.float16)


@pytest.fixture
def file(tmp_path):
    with TokenFile(tmp_path / "cache", 3, 2) as opened:
        for image in IMAGES:
            opened.append(image)
        yield opened


def test_images_and_rows_are_read_in_any_order_and_more_than_once(file):
    tokens = file.images([2, 0, 3])
    assert tokens.shape == (3, 3, 2)
    assert [tokens.image(i).tolist() for i in range(3)] == IMAGES[[2, 0, 3]].tolist()
    rows = np.array([8, 0, 3, 4, 0, 1])
    assert tokens.rows()[rows].tolist() == IMAGES[[2, 0, 3]].reshape(9, 2)[rows].tolist()
    assert tokens.rows()[np.array([], np.intp)].shape == (0, 2)


def test_candidates_are_renumbered(file):
    candidates = np.array([1, 4, 5])
    rows = np.array([2, 0])
    for tokens in (file.images(range(4)), ArrayTokens(IMAGES)):
        assert tokens.rows(candidates).shape == (3, 2)
        assert tokens.rows(candidates)[rows].tolist() == IMAGES.reshape(12, 2)[[5, 1]].tolist()


def test_nothing_is_left_in_the_folder(tmp_path):
    with TokenFile(tmp_path, 3, 2) as file:
        file.append(IMAGES[0])
        assert list(tmp_path.iterdir()) == []
    assert list(tmp_path.iterdir()) == []


def test_rows_beyond_the_end_and_tokens_of_another_size_are_refused(file):
    with pytest.raises(IndexError, match="beyond the end"):
        file.read(np.array([12]))
    with pytest.raises(ValueError, match=r"expected float16 \(3, 2\)"):
        file.append(IMAGES[0][:2])


def test_a_file_gives_the_same_bank_and_leave_one_out_distances_as_an_array(tmp_path):
    raw = 2 + np.random.default_rng(0).normal(size=(5, 80, 24))
    tokens = (raw / np.linalg.norm(raw, axis=-1, keepdims=True)).astype(np.float16)
    with TokenFile(tmp_path, 80, 24) as file:
        stored = file.images([file.append(image) for image in tokens])
        found, expected = build_memory_bank(stored, 0.1, 3), build_memory_bank(tokens, 0.1, 3)
        assert found.tokens.tobytes() == expected.tokens.tobytes()
        assert found.image_index.tolist() == expected.image_index.tolist()
        one, other = leave_one_out_distances(found, stored, 2), leave_one_out_distances(expected, tokens, 2)
    assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("from_file", [False, True])
def test_only_tokens_inside_enter_the_bank(tmp_path, from_file):
    raw = np.random.default_rng(0).normal(size=(2, 4, 8))
    tokens = (raw / np.linalg.norm(raw, axis=-1, keepdims=True)).astype(np.float16)
    inside = np.array([[True, False, True, False], [False, False, False, True]])
    with TokenFile(tmp_path, 4, 8) as file:
        source = file.images([file.append(image) for image in tokens]) if from_file else tokens
        bank = build_memory_bank(source, 1.0, 0, inside)
    assert sorted(zip(bank.image_index.tolist(), bank.token_index.tolist(), strict=True)) == [(0, 0), (0, 2), (1, 3)]
    np.testing.assert_array_equal(bank.tokens, tokens[bank.image_index, bank.token_index])
