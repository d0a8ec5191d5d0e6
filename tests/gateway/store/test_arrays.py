"""Arrays as files: read as they were written, or refused."""

import io

import numpy as np
import pytest

from gateway.store.arrays import npz_bytes, read_npz, view_npz

ARRAYS = {
    "tokens": np.arange(6, dtype=np.float16).reshape(2, 3),
    "image_index": np.arange(3, dtype=np.int32),
    "norm": np.array(2.5, np.float32),
    "none": np.empty((0, 4), np.float32),
}


def test_a_view_shows_what_was_written_and_cannot_change_it():
    viewed = view_npz(npz_bytes(**ARRAYS))
    assert viewed.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(viewed[name], array)
        assert viewed[name].dtype == array.dtype
        assert viewed[name].flags.aligned
    with pytest.raises(ValueError, match="read-only"):
        viewed["tokens"][0, 0] = 1


def compressed() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, tokens=np.zeros((100, 100)))
    return buffer.getvalue()


def pickled() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, tokens=np.array([{}], object), allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize("data", [b"", b"PK", compressed(), pickled(), npz_bytes(**ARRAYS)[:200]])
def test_what_npz_bytes_did_not_write_is_no_array_file(data):
    with pytest.raises(ValueError, match="not an array file"):
        view_npz(data)


def test_no_damage_makes_a_view_read_beyond_its_array():
    """The caller has compared the file's SHA-256; without that, values may differ, but nothing else is read."""
    data = npz_bytes(tokens=ARRAYS["tokens"], image_index=ARRAYS["image_index"])
    for place in range(len(data)):
        damaged = data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]
        try:
            viewed = view_npz(damaged)
        except ValueError:
            continue
        assert sum(array.nbytes for array in viewed.values()) < len(data)


def test_a_changed_value_fails_where_the_archive_is_all_that_is_checked():
    data = npz_bytes(tokens=ARRAYS["tokens"])
    at = data.index(ARRAYS["tokens"].tobytes())
    with pytest.raises(ValueError, match="not an array file"):
        read_npz(data[:at] + b"\xff" + data[at + 1 :])
