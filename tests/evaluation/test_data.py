"""Folders in MVTec layout and CSV files."""

import cv2
import numpy as np
import pytest

from evaluation.data import DataError, read_csv, read_folder, read_rows


def write(path, value=128):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((12, 10), value, np.uint8))
    return path


@pytest.fixture
def table(tmp_path):
    lines = ["image path,connector,label"]
    for connector in ("conn1", "conn2"):
        for i in range(10):
            lines.append(f"{write(tmp_path / connector / f'ok{i}.png', i).relative_to(tmp_path)},{connector},OK")
        lines.append(f"{write(tmp_path / connector / 'bad.png').relative_to(tmp_path)},{connector},KO")
        lines.append(f"{write(tmp_path / connector / 'hand.png').relative_to(tmp_path)},{connector},OCCLUSION")
        lines.append(f"{write(tmp_path / connector / 'odd.png').relative_to(tmp_path)},{connector},unclear")
    file = tmp_path / "dataset.csv"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_a_folder_in_mvtec_layout(tmp_path):
    for name in ("train/good/b.png", "train/good/a.png", "test/good/c.png", "test/hole/d.png", "test/crack/e.png"):
        write(tmp_path / name)
    write(tmp_path / "ground_truth" / "hole" / "d_mask.png", 255)
    (tmp_path / "train" / "good" / "notes.txt").write_text("not an image")
    data = read_folder(tmp_path)
    assert [path.name for path in data.train] == ["a.png", "b.png"]
    assert data.counts() == {"good": 1, "crack": 1, "hole": 1}
    assert [s.is_ng for s in data.test] == [True, False, True]
    by_kind = {sample.kind: sample for sample in data.test}
    assert by_kind["hole"].truth((10, 12)).all()
    assert not by_kind["good"].truth((10, 12)).any()
    assert by_kind["crack"].truth((10, 12)) is None
    assert data.has_masks
    with pytest.raises(DataError, match="10 × 12, its image 12 × 10"):
        by_kind["hole"].truth((12, 10))


def test_an_image_that_is_learned_is_not_inspected_as_unseen_whatever_its_name(table):
    rows = table.read_text().splitlines()
    copies = [write(table.parent / "conn1" / f"again{i}.png", i) for i in range(10)]
    again = [f"{copy.relative_to(table.parent)},conn1,OK" for copy in copies]
    table.write_text("\n".join([*rows, *rows[1:], *again]) + "\n")
    data = read_csv(table)[0]
    learned = {path.read_bytes() for path in data.train}
    assert len(data.train) == len(learned) == 7
    assert data.counts() == {"good": 3, "KO": 2}
    assert not any(sample.path.read_bytes() in learned for sample in data.test)


def test_a_csv_without_a_row_is_refused(tmp_path):
    file = tmp_path / "d.csv"
    file.write_text("image path,connector,label\n")
    with pytest.raises(DataError, match="no row"):
        read_csv(file)


def test_the_same_image_as_ok_and_as_bad_is_refused(table):
    copy = write(table.parent / "conn1" / "copy.png", 3)
    table.write_text(f"{table.read_text()}{copy.relative_to(table.parent)},conn1,KO\n")
    with pytest.raises(DataError, match=r"connector conn1: ok3\.png \(OK\) and copy\.png \(KO\) are the same image"):
        read_csv(table)


def test_a_folder_says_how_many_of_the_images_to_inspect_are_learned_ones(tmp_path):
    for name, value in {
        "train/good/a.png": 1,
        "test/good/b.png": 1,
        "test/good/c.png": 2,
        "test/hole/d.png": 3,
    }.items():
        write(tmp_path / name, value)
    assert read_folder(tmp_path).n_seen == 1


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_header_says_what_parts_the_columns(table, delimiter):
    header = delimiter.join(["image path", "connector", "label", '"a, b; c, d; e"'])
    expected = read_rows(table)
    rows = table.read_text().replace(",", delimiter).partition("\n")[2]
    table.write_text(f"{header}\n{rows}{delimiter}{delimiter}\n")
    assert read_rows(table) == expected


def test_a_folder_without_good_or_bad_images_is_refused(tmp_path):
    with pytest.raises(DataError, match="no good image to learn"):
        read_folder(tmp_path)
    write(tmp_path / "train" / "good" / "a.png")
    write(tmp_path / "test" / "good" / "b.png")
    with pytest.raises(DataError, match="both good and bad"):
        read_folder(tmp_path)


def test_a_csv_is_one_data_set_per_connector(table):
    first, second = read_csv(table)
    assert (first.name, second.name) == ("conn1", "conn2")
    assert len(first.train) == 7
    assert first.counts() == {"good": 3, "KO": 1}
    assert {p.name for p in first.train}.isdisjoint({s.path.name for s in first.test})
    assert [data.name for data in read_csv(table, connector="conn2")] == ["conn2"]
    assert read_csv(table, seed=1)[0].train != first.train
    assert read_csv(table)[0].checksum() == first.checksum()


def test_occlusions_are_left_out_whatever_the_labels_of_bad_images(table):
    assert read_csv(table)[0].ignored == {"OCCLUSION": 1, "unclear": 1}
    (data,) = read_csv(table, ["unclear", "occlusion", "ko"], connector="conn1")
    assert data.ignored == {"OCCLUSION": 1}
    assert data.counts() == {"good": 3, "KO": 1, "unclear": 1}


def test_labels_and_columns_in_any_case(tmp_path):
    write(tmp_path / "a.png")
    file = tmp_path / "d.csv"
    file.write_text(
        "Label, Image Path ,CONNECTOR\nok,a.png,c\nng,a.png,c\nocclusion,gone.png,c\n", encoding="utf-8-sig"
    )
    assert [row.is_ok for row in read_rows(file)] == [True, False, None]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path,label\n", "no column 'connector'; its columns are path, label"),
        ("", "its columns are none"),
        ("path,connector,label\ngone.png,c,OK\n", "line 2: gone.png does not exist"),
        ("path,connector,label\na.png,,OK\n", "line 2: 'a.png' has no connector"),
    ],
)
def test_a_csv_that_cannot_be_used_says_why(tmp_path, text, said):
    file = tmp_path / "d.csv"
    file.write_text(text)
    with pytest.raises(DataError, match=said):
        read_rows(file)
