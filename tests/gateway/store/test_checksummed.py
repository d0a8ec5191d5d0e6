import json

import numpy as np
import pytest

from gateway.errors import NewerFormatError
from gateway.store.checksummed import DamagedError, sealed, sealed_npz, unsealed, unsealed_npz
from gateway.store.manifest import Pointer

TEXT = json.dumps({"format": 2, "threshold": 0.5, "name": "é"}, ensure_ascii=False)


def flips(data: bytes) -> list[bytes]:
    """With one bit of each byte changed, another one from byte to byte."""
    return [data[:i] + bytes([byte ^ (1 << i % 8)]) + data[i + 1 :] for i, byte in enumerate(data)]


def test_a_sealed_object_is_plain_json_and_comes_back_as_it_was() -> None:
    data = sealed(TEXT)
    assert json.loads(data)["threshold"] == 0.5
    assert unsealed(data, "x.json").items() >= json.loads(TEXT).items()


def test_every_changed_byte_and_every_truncation_of_a_sealed_object_is_noticed() -> None:
    data = sealed(TEXT)
    for damaged in (*flips(data), *(data[:n] for n in range(len(data))), data + b" ", b"[" * 100_000):
        with pytest.raises(DamagedError, match=r"x\.json"):
            unsealed(damaged, "x.json")


def test_an_object_of_format_1_has_no_seal_and_is_read_as_it_is() -> None:
    assert unsealed(b'{"format": 1, "a": 2}', "x.json") == {"format": 1, "a": 2}
    assert unsealed(b'{"a": 2}', "x.json") == {"a": 2}


def test_a_format_that_needs_a_seal_is_not_believed_without_one() -> None:
    with pytest.raises(DamagedError):
        unsealed(TEXT.encode(), "x.json")


@pytest.mark.parametrize("seal", [sealed, str.encode])
def test_a_later_format_asks_for_a_newer_gateway_and_is_not_called_damaged(seal) -> None:
    with pytest.raises(NewerFormatError, match=r"x\.json is of format 3") as caught:
        unsealed(seal('{"format": 3}'), "x.json")
    assert "Upgrade" in caught.value.hint


def test_every_changed_byte_and_every_truncation_of_sealed_arrays_is_noticed() -> None:
    tokens = np.arange(6, dtype=np.float16).reshape(2, 3)
    data = sealed_npz(tokens=tokens)
    assert unsealed_npz(data, "x.npz")["tokens"].tolist() == tokens.tolist()
    for damaged in (*flips(data), *(data[:n] for n in range(len(data)))):
        with pytest.raises(DamagedError, match=r"x\.npz"):
            unsealed_npz(damaged, "x.npz")


def test_one_damaged_line_of_a_pointer_leaves_the_other() -> None:
    pointer = Pointer(version=3, last=7, manifests={3: "a" * 64, 7: "b" * 64})
    data = pointer.to_bytes()
    assert Pointer.from_lines(data) == pointer
    for damaged in flips(data):
        assert Pointer.from_lines(damaged) == pointer
    for n in range(len(data)):
        if n < len(data) // 2 - 1:
            with pytest.raises(DamagedError):
                Pointer.from_lines(data[:n])
        else:
            assert Pointer.from_lines(data[:n]) == pointer
