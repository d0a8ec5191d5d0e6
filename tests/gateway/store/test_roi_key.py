import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidRequestError
from gateway.store.ids import LONGEST_FOLDER_NAME, alike, folder_name, id_of_folder, is_reserved, valid_id
from gateway.store.roi_key import RoiKey, stored_keys

IDS = st.text(
    st.characters(categories=("L", "Mn", "Mc", "Nd"), include_characters=" ._-"), min_size=1, max_size=64
).filter(lambda text: valid_id(text) is not None)


@pytest.mark.parametrize(
    "value",
    [
        *("a", "A-1", "disc front", "x" * 64, "_", "-", "a..b", "1.2.3", "con"),
        *("Línea 1", "Prüfstand 2", "Übergabe", "検査台", "第3工位", "контроль", "٣", "हिन्दी", "ｌ", "𠮷"),
    ],
)
def test_ids_of_the_contract_are_accepted(value: str) -> None:
    assert str(RoiKey(value, "roi")) == f"{value}/roi"


@pytest.mark.parametrize(
    "value",
    [
        *(
            "",
            " ",
            ".",
            "..",
            "../x",
            "a/b",
            "a\\b",
            ".a",
            "a.",
            " a",
            "a ",
            "x" * 65,
            "é" * 65,
            "a\n",
            "a\0",
            "~",
            "%2e",
        ),
        *("a\u202e", "a\u200db", "\u0301a", "\u3164", "a\ufe0f", "m²", "½", "a\u00a0b", "😀", "\ud800", "a\uff0fb"),
    ],
)
@pytest.mark.parametrize("field", ["role_id", "roi_id", "recipe_id"])
def test_other_ids_never_become_a_key(field: str, value: str) -> None:
    ids = {"role_id": "role", "roi_id": "roi", field: value}
    with pytest.raises(InvalidRequestError, match=field) as caught:
        RoiKey(**ids)
    assert "64 characters" in caught.value.hint


def test_a_very_long_id_is_not_echoed_whole() -> None:
    with pytest.raises(InvalidRequestError, match=r"\(10000 characters\)") as caught:
        RoiKey("x" * 10_000, "roi")
    assert len(caught.value.message) < 200


def test_an_id_is_the_same_in_every_normal_form() -> None:
    composed, decomposed = RoiKey("Línea 1", "Prüfstand"), RoiKey("Li\u0301nea 1", "Pru\u0308fstand")
    assert composed == decomposed
    assert hash(composed) == hash(decomposed)
    assert decomposed.role_id == "L\u00ednea 1"
    assert valid_id("e\u0301" * 64) == "\u00e9" * 64  # 64 characters, although 128 were sent


@pytest.mark.parametrize(
    ("value", "folder"),
    [
        ("disc front", "disc front"),
        ("Línea 1", "L%C3%ADnea 1"),
        ("検", "%E6%A4%9C"),
        ("٣", "%D9%A3"),
        ("a.b_c-d", "a.b_c-d"),
    ],
)
def test_what_is_not_ascii_is_percent_encoded_in_a_folder_name(value: str, folder: str) -> None:
    assert folder_name(value) == folder
    assert id_of_folder(folder) == value
    assert RoiKey(value, value).path.parts == (folder, folder)


@given(IDS, IDS)
def test_every_id_has_a_folder_of_its_own_that_gives_it_back(one: str, other: str) -> None:
    one, other = valid_id(one), valid_id(other)
    name = folder_name(one)
    assert id_of_folder(name) == one
    assert name.isascii()
    assert "/" not in name
    assert name[0] != "."
    assert (folder_name(other).lower() == name.lower()) <= (one == other or alike(one, other))


@given(st.text(max_size=30) | st.text("%0123456789ABCDEFabcdef.", max_size=12))
def test_a_folder_that_no_id_has_is_no_roi(name: str) -> None:
    value = id_of_folder(name)
    assert value is None or (folder_name(value) == name and valid_id(value) == value)


@pytest.mark.parametrize(
    "name", ["", ".locks", "%41", "%c3%AD", "L%C3%ADnea ", "%C3", "%FF", "%2F", "Li%CC%81nea", "Línea", "a%", "%2E%2E"]
)
def test_these_folders_are_no_rois(name: str) -> None:
    assert id_of_folder(name) is None


def test_paths_of_the_default_recipe_are_those_of_releases_without_recipes() -> None:
    assert RoiKey("part", "face").path.as_posix() == "part/face"
    assert RoiKey("part", "face", "default") == RoiKey("part", "face")
    assert RoiKey("part", "face", "winter").path.as_posix() == ".recipes/winter/part/face"


def test_a_key_is_read_from_what_it_is_shown_as() -> None:
    for key in (RoiKey("part", "face"), RoiKey("part", "face", "winter"), RoiKey("winter", "part", "face")):
        assert RoiKey.parse(str(key)) == key
    assert str(RoiKey("part", "face")) == "part/face"
    assert str(RoiKey("part", "face", "winter")) == "winter/part/face"
    for text in ("part", "a/b/c/d", "", "/a/b", "a//b"):
        with pytest.raises(InvalidRequestError):
            RoiKey.parse(text)


def test_messages_name_the_recipe_in_the_query() -> None:
    assert RoiKey("disc front", "é").url("/ok/1") == "/rois/disc%20front/%C3%A9/ok/1"
    assert RoiKey("part", "face", "winter").url("/ok/1") == "/rois/part/face/ok/1?recipe_id=winter"


def test_recipes_are_listed_and_a_second_folder_of_the_default_recipe_is_not(tmp_path: Path) -> None:
    for path in ("part/face", ".recipes/winter/part/face", ".recipes/default/part/face", ".recipes/.x/part/face"):
        (tmp_path / path).mkdir(parents=True)
    assert sorted(stored_keys(tmp_path)) == [RoiKey("part", "face"), RoiKey("part", "face", "winter")]


def test_only_folders_with_names_of_ids_are_listed(tmp_path: Path) -> None:
    for path in ("part/face", "L%C3%ADnea 1/%E6%A4%9C", ".locks/part", "part/%41", "Línea/a", "part/.x"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "part" / "file").touch()
    assert sorted(stored_keys(tmp_path)) == [RoiKey("Línea 1", "検"), RoiKey("part", "face")]


@pytest.mark.parametrize(("letter", "longest"), [("ж", 41), ("検", 27), ("𠮷", 20)])
def test_an_id_whose_folder_name_is_too_long_is_refused(letter: str, longest: int, tmp_path: Path) -> None:
    (tmp_path / f"{RoiKey('role', letter * longest).path.name}.jsonl").touch()
    with pytest.raises(InvalidRequestError, match=f"roi_id.*too long.*{LONGEST_FOLDER_NAME}"):
        RoiKey("role", letter * (longest + 1))


@pytest.mark.parametrize("value", ["CON", "nul", "Aux.txt", "nul.tar.gz", "com1", "LPT9", "con .x", "PRN"])
def test_names_of_windows_devices_are_known(value: str) -> None:
    assert is_reserved(value)


@pytest.mark.parametrize("value", ["console", "com", "com10", "a.con", "lpt-1", "nul-1", "CON1"])
def test_other_names_are_not_taken_for_devices(value: str) -> None:
    assert not is_reserved(value)


@pytest.mark.parametrize(("one", "other"), [("Part", "part"), ("LÍNEA", "línea"), ("Straße", "STRASSE"), ("Ж", "ж")])
def test_ids_that_differ_only_in_case_are_alike(one: str, other: str) -> None:
    assert alike(one, other)
    assert alike(other, one)
    assert not alike(one, one)
    assert not alike(one, other + "1")


def test_marks_make_another_id() -> None:
    assert not alike("Línea", "linea")
    assert unicodedata.normalize("NFC", "Línea") != "Linea"
