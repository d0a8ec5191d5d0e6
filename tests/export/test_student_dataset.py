"""The images of a training, and that no other file is opened."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from evaluation.data import read_csv as read_labelled_for_evaluation
from export.errors import ExportError
from export.labelled_csv import Columns
from export.student_teacher.augment import Augmentation, augmented
from export.student_teacher.dataset import SMALLEST_OK, load, read_csv, read_folder
from tests.export.tiny_student import write_images


def write_csv(folder: Path, *rows: tuple[str, str, str], header: str = "image path,connector,label") -> Path:
    file = folder / "dataset.csv"
    file.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")
    return file


def ok_rows(folder: Path, connector: str, count: int, seed: int) -> list[tuple[str, str, str]]:
    return [(f"ok/{path.name}", connector, "OK") for path in write_images(folder / "ok", count, seed)]


def split(images) -> tuple[set[str], set[str]]:
    return set(images.train_sha256), set(images.validation_sha256)


def test_only_rows_labelled_ok_are_opened(tmp_path):
    (tmp_path / "occluded.png").mkdir()
    file = write_csv(
        tmp_path,
        *ok_rows(tmp_path, "conn1", 10, seed=1),
        ("absent.png", "conn1", "KO"),
        ("occluded.png", "conn1", "OCCLUSION"),
        ("absent too.png", "conn1", "PARTIAL OCCLUSION"),
    )
    found = read_csv(file, Columns())["conn1"]
    images = load(found, 32, 0, 0.2)
    assert len(images.train) + len(images.validation) == 10
    assert found.unused == {"KO": 1, "OCCLUSION": 1, "PARTIAL OCCLUSION": 1}
    assert {Path(name).suffix for name in images.files.values()} == {".png"}


def test_each_connector_has_its_images_and_paths_are_relative_to_the_file(tmp_path, monkeypatch):
    rows = ok_rows(tmp_path / "data", "conn2", 11, seed=2) + ok_rows(tmp_path / "data", "conn1", 10, seed=1)
    file = write_csv(tmp_path / "data", *rows)
    monkeypatch.chdir(tmp_path)
    found = read_csv(file, Columns())
    assert {name: len(each.paths) for name, each in found.items()} == {"conn1": 10, "conn2": 11}
    assert list(found) == ["conn1", "conn2"]
    load(found["conn2"], 32, 0, 0.2)


def test_training_and_evaluation_read_the_same_csv_alike(tmp_path, monkeypatch):
    (tmp_path / "lists").mkdir()
    rows = [*ok_rows(tmp_path / "lists", "conn1", 6, seed=1), ("bad.png", "conn1", "KO")]
    rows += [(f"here/{path.name}", "conn1", "ok") for path in write_images(tmp_path / "here", 6, seed=2)]
    (tmp_path / "lists" / "bad.png").write_bytes(b"not opened")
    file = write_csv(tmp_path / "lists", *rows, header="Image_Path,roi,label")
    monkeypatch.chdir(tmp_path)  # the second half of the paths are relative to it
    trained = read_csv(file, Columns())["conn1"].paths
    (evaluated,) = read_labelled_for_evaluation(file)
    good = [*evaluated.train, *(sample.path for sample in evaluated.test if not sample.is_ng)]
    assert sorted(trained) == sorted(good)
    assert len(trained) == 12


def test_columns_and_label_may_have_other_names(tmp_path):
    file = write_csv(tmp_path, ("a.png", "x", "gut"), ("b.png", "x", "OK"), header="Bild, Stecker ,Urteil")
    found = read_csv(file, Columns(("bild",), ("stecker",), ("urteil",), ok="GUT"))["x"]
    assert [path.name for path in found.paths] == ["a.png"]
    assert found.unused == {"OK": 1}


def test_a_csv_from_windows_or_macos_is_read(tmp_path):
    write_images(tmp_path / "sub", 2, seed=1)
    names = sorted(path.name for path in (tmp_path / "sub").iterdir())
    file = write_csv(
        tmp_path, (f"sub\\{names[0]}", "Pru\u0308f", "OK"), (f"./sub/../sub/{names[1]}", "Pr\u00fcf", "OK")
    )
    (found,) = read_csv(file, Columns()).values()
    assert found.connector == "Pr\u00fcf"
    assert found.paths == [tmp_path / "sub" / name for name in names]


def test_another_encoding_names_the_remedy(tmp_path):
    file = tmp_path / "data.csv"
    for encoding in ("utf-16", "latin-1"):
        file.write_bytes("image path,connector,label\na.png,Prüf,OK\n".encode(encoding))
        with pytest.raises(ExportError, match=r'not a CSV in UTF-8 .* save it as "CSV UTF-8"'):
            read_csv(file, Columns())


def test_a_missing_column_is_named_with_the_existing_ones(tmp_path):
    file = write_csv(tmp_path, header="image path,plug,verdict")
    with pytest.raises(ExportError, match=r"no column 'connector' and no column 'label'; .* image path, plug, verdict"):
        read_csv(file, Columns())


def test_the_same_picture_in_other_bytes_counts_once(tmp_path):
    paths = write_images(tmp_path, 11)
    for i, path in enumerate(paths):
        if i % 2:
            cv2.imwrite(str(path.with_suffix(".bmp")), cv2.imread(str(path)))
    images = load(read_folder(tmp_path, "x"), 32, 0, 0.2)
    assert len(images.train) + len(images.validation) == 11
    assert images.n_duplicates == 5


def test_an_image_that_shows_nothing_is_never_learned(tmp_path):
    write_images(tmp_path, 11)
    cv2.imwrite(str(tmp_path / "dark.png"), np.zeros((40, 40), np.uint8))
    with pytest.raises(ExportError, match=r"dark\.png shows nothing \(every pixel has the value 0\)"):
        load(read_folder(tmp_path, "x"), 32, 0, 0.2)


def test_hidden_files_in_a_folder_of_images_are_ignored(tmp_path):
    paths = write_images(tmp_path, 11)
    (tmp_path / f"._{paths[0].name}").write_bytes(b"written by macOS")
    (tmp_path / "Thumbs.db").write_bytes(b"written by Windows")
    assert read_folder(tmp_path, "x").paths == sorted(paths)


def test_an_image_with_two_labels_is_refused(tmp_path):
    file = write_csv(tmp_path, ("a.png", "x", "OK"), ("a.png", "x", "KO"))
    with pytest.raises(ExportError, match=r"a\.png of connector x is both OK and KO"):
        load(read_csv(file, Columns())["x"], 32, 0, 0.2)


def test_the_same_content_counts_once_and_is_on_one_side(tmp_path):
    paths = write_images(tmp_path, 12)
    for i, path in enumerate(paths):
        for copy in range(3):
            (tmp_path / f"again_{i}_{copy}.png").write_bytes(path.read_bytes())
    images = load(read_folder(tmp_path, "x"), 32, 0, 0.25)
    train, validation = split(images)
    assert (len(train), len(validation), images.n_duplicates) == (9, 3, 36)
    assert not train & validation


def test_names_and_order_do_not_change_the_split_and_the_seed_does(tmp_path):
    for i, path in enumerate(write_images(tmp_path / "a", 20)):
        (tmp_path / "b").mkdir(exist_ok=True)
        (tmp_path / "b" / f"{99 - i}.png").write_bytes(path.read_bytes())
    one, same = (load(read_folder(tmp_path / name, "x"), 32, 0, 0.2) for name in "ab")
    assert split(one) == split(same)
    np.testing.assert_array_equal(one.train, same.train)
    assert split(one) != split(load(read_folder(tmp_path / "a", "x"), 32, 1, 0.2))


def test_an_image_is_decoded_as_the_gateway_does(tmp_path):
    for path in write_images(tmp_path, SMALLEST_OK):
        grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        cv2.imwrite(str(path), grey[:30])
    images = load(read_folder(tmp_path, "x"), 32, 0, 0.2)
    assert (images.train.dtype, images.train.shape) == (np.uint8, (8, 32, 32, 3))
    assert (images.train[..., 0] == images.train[..., 2]).all()


def test_too_few_different_images_are_refused_with_their_number(tmp_path):
    (first, *_) = write_images(tmp_path, SMALLEST_OK - 1)
    (tmp_path / "copy.png").write_bytes(first.read_bytes())
    with pytest.raises(ExportError, match=rf"9 different OK images; at least {SMALLEST_OK}"):
        load(read_folder(tmp_path, "x"), 32, 0, 0.2)


def test_an_ok_image_that_cannot_be_read_is_named(tmp_path):
    write_images(tmp_path, SMALLEST_OK)
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ExportError, match=r"torn\.png"):
        load(read_folder(tmp_path, "x"), 32, 0, 0.2)
    (tmp_path / "torn.png").unlink()
    file = write_csv(tmp_path, ("gone.png", "x", "OK"))
    with pytest.raises(ExportError, match=r"connector x: .*gone\.png cannot be read"):
        load(read_csv(file, Columns())["x"], 32, 0, 0.2)


@pytest.fixture
def image() -> np.ndarray:
    y, x = np.mgrid[0:64, 0:64]
    return np.repeat((100 + 40 * np.sin(x / 9) * np.cos(y / 7))[..., None], 3, axis=2).astype(np.uint8)


def test_an_augmented_image_stays_within_what_is_stated(image):
    how = Augmentation()
    for seed in range(50):
        changed = augmented(image, np.random.default_rng(seed), how)
        assert (changed.dtype, changed.shape) == (np.float32, image.shape)
        # A tenth of full scale for the brightness, and some more for the shift of a smooth image.
        assert abs(changed.mean() - image.mean()) < 0.1 * 255 + 3
        assert np.corrcoef(changed.ravel(), image.ravel())[0, 1] > 0.9


def test_the_same_generator_augments_alike_and_another_does_not(image):
    one, same, other = (augmented(image, np.random.default_rng([7, 0, i]), Augmentation()) for i in (3, 3, 4))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1


def test_an_augmentation_of_zero_changes_nothing(image):
    how = Augmentation(shift=0, brightness=0, contrast=0, blur=0, noise=0)
    np.testing.assert_allclose(augmented(image, np.random.default_rng(0), how), image, atol=1e-3)
