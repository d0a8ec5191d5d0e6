"""Version folders and their ``model.json``, with the content that repositories really have."""

import codecs
from pathlib import Path

import pytest

from gateway.networks.model_description import (
    DESCRIPTION_FILE,
    DescriptionError,
    newest_version,
    read_description,
    version_folders,
)
from tests.export.tiny_model import write_version


@pytest.mark.parametrize(
    "odd", ["0001", "0002", "0", "2.bak", "2 (copy)", "-2", "1٣", "２", "v2", ".tmp-2", "9" * 30, "1e3"]
)
def test_a_folder_that_triton_ignores_is_no_version(tmp_path: Path, odd: str) -> None:
    write_version(tmp_path / odd)
    with pytest.raises(DescriptionError, match="no exported model"):
        newest_version(tmp_path)
    write_version(tmp_path / "1", factor=2)
    assert newest_version(tmp_path) == tmp_path / "1"


def test_versions_are_sorted_by_number_and_may_be_links(tmp_path: Path) -> None:
    for number in ("9", "10", "2"):
        write_version(tmp_path / number)
    (tmp_path / "2").rename(tmp_path / "elsewhere")
    (tmp_path / "2").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "11").symlink_to(tmp_path / "nowhere")
    (tmp_path / "12").write_text("a file")
    (tmp_path / "13" / DESCRIPTION_FILE).mkdir(parents=True)
    assert [folder.name for folder in version_folders(tmp_path)] == ["10", "9", "2"]


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_model_folder_that_is_none_has_no_versions(tmp_path: Path, kind: str) -> None:
    if kind == "file":
        (tmp_path / "model").write_text("a file")
    assert version_folders(tmp_path / "model") == []


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    described = write_version(tmp_path / "1")
    path = tmp_path / "1" / DESCRIPTION_FILE
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    assert read_description(tmp_path / "1") == described


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{}".encode("utf-16"), "not UTF-8"),
        (b"", "Invalid JSON"),
        (b'{"format": 1,', "Invalid JSON"),
        (b"[]", "should be an object"),
        (b"{}", "name: Field required"),
        (b'{"format": 2}', "format: Input should be 1"),
    ],
)
def test_another_content_is_one_clear_error(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / DESCRIPTION_FILE).write_bytes(content)
    with pytest.raises(DescriptionError, match=said) as caught:
        read_description(tmp_path)
    assert str(tmp_path / DESCRIPTION_FILE) in str(caught.value)
    assert "\n" not in str(caught.value)
