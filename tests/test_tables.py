"""Tables are written whole or not at all, and come back as they were."""

import errno
import os

import pandas as pd
import pytest

from cytology.catalogue import as_markdown
from cytology.data.inspection import open_cache
from cytology.files import fitting_name, folder_written_whole, lock_file, written_whole
from cytology.settings import PROJECT_ROOT, InputError, MachineError
from cytology.tables import read_json, read_table, require, write_json, write_table


def test_an_error_in_the_middle_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "manifest.csv"
    path.write_text("old")
    with pytest.raises(RuntimeError), written_whole(path) as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_new_file_appears_only_when_it_is_complete(tmp_path):
    path = tmp_path / "new folder" / "model.weights.h5"
    with written_whole(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.name.endswith(".weights.h5")
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize("mask", [0o077, 0o002, 0o022])
def test_files_get_the_permissions_that_the_umask_allows(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_json(tmp_path / "run", "split.json", {})
        (tmp_path / "run" / "old.csv").touch(0o600)
        write_table(tmp_path / "run", "old.csv", pd.DataFrame({"image_id": ["1"]}))
        with folder_written_whole(tmp_path / "run" / "exports") as new:
            (new / "model.tflite").touch()
        for _ in range(2):  # the second time the lock file exists
            with lock_file(tmp_path / "run" / ".lock"):
                pass
        open_cache(tmp_path / "run" / "inspected.sqlite").close()
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "run").rglob("*")}
    assert modes.pop("exports") == (tmp_path / "run").stat().st_mode & 0o777 == 0o777 & ~mask
    names = ("split.json", "old.csv", "model.tflite", ".lock", "inspected.sqlite")
    assert modes == dict.fromkeys(names, 0o666 & ~mask)


@pytest.mark.parametrize("named", [None, "", "beside", "new/deep.h5"])
def test_a_write_error_names_the_file(tmp_path, named):
    place = None if named is None else str(tmp_path / named)
    with pytest.raises(MachineError, match="a.csv cannot be written: no permission"):
        with written_whole(tmp_path / "a.csv"):
            raise PermissionError(errno.EACCES, "Permission denied", place)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.ENAMETOOLONG])
def test_a_write_error_does_not_blame_another_file(tmp_path, number):
    with pytest.raises(OSError, match="/elsewhere/python"), written_whole(tmp_path / "a.csv"):
        raise OSError(number, "not here", "/elsewhere/python")


def test_a_name_that_is_too_long_is_reported(tmp_path):
    with pytest.raises(MachineError, match="the name is too long"):
        with written_whole(tmp_path / ("x" * 300) / "a.csv"):
            pass


@pytest.mark.parametrize("letter", "xü€🔬")
def test_long_names_are_cut_by_bytes_and_stay_different(tmp_path, letter):
    longest = letter * (251 // len(letter.encode()))
    assert fitting_name(longest, ".png") == f"{longest}.png"
    names = {fitting_name(letter * 300 + last, ".png") for last in "abc"} | {
        fitting_name(letter * 300)
    }
    assert len(names) == 4
    for name in names:
        (tmp_path / name).touch()
        assert len(name.encode()) <= 255 and name.startswith(letter * 10)


def test_codes_are_read_as_text_and_numbers_as_numbers(tmp_path):
    table = pd.DataFrame(
        {
            "image_id": ["B/ä b.png", 'M/"q", x.png', "M/2.png", "M/3.png"],
            "patient": ["007", "", "NA", "None"],
            "group": ["1e5", "nan", "null", "3"],
            "slide": [""] * 4,
            "fold": pd.array([0, 1, pd.NA, 2], dtype="Int64"),
            "logit": [0.5, -1e-7, float("nan"), 2],
        }
    )
    write_table(tmp_path, "manifest.csv", table)
    back = read_table(tmp_path, "manifest.csv")
    texts = ["image_id", "patient", "group", "slide"]
    assert back[texts].to_numpy().tolist() == table[texts].to_numpy().tolist()
    assert back["logit"].isna().tolist() == [False, False, True, False]
    assert back["fold"].isna().tolist() == [False, False, True, False]
    pd.testing.assert_series_equal(back["logit"], table["logit"])


def test_an_empty_table_is_read_as_empty(tmp_path):
    write_table(tmp_path, "rejected.csv", pd.DataFrame(columns=["image_id", "label", "reason"]))
    back = read_table(tmp_path, "rejected.csv")
    assert list(back) == ["image_id", "label", "reason"] and back.empty


def test_json_keeps_umlauts_and_order(tmp_path):
    write_json(tmp_path, "dataset.json", {"z": "Präparat", "a": [1, float("nan")]})
    assert list(read_json(tmp_path, "dataset.json").items()) == [
        ("z", "Präparat"),
        ("a", [1, None]),
    ]
    assert "Präparat" in (tmp_path / "dataset.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "notebook"),
    [
        ("manifest.csv", "01_data_exploration"),
        ("augmentation.json", "02_augmentation"),
        ("split.csv", "03_splitting"),
        ("inceptionv3/predictions.csv", "05_train_inceptionv3"),
        ("tables/comparison.csv", "07_comparison"),
    ],
)
def test_an_error_about_a_missing_file_names_its_notebook(tmp_path, name, notebook):
    with pytest.raises(InputError) as error:
        require(tmp_path, name)
    assert str(error.value) == (
        f"{name} is missing in {tmp_path}: run notebook {notebook} first "
        f"(with run_dir = {str(tmp_path)!r})."
    )


@pytest.mark.parametrize("text", ["=1+1", "+1", "@a", "\tx", "-x", "-1|x", "a;=1", "a\n=1"])
def test_no_table_contains_a_formula(tmp_path, text):
    table = pd.DataFrame({"image_id": ["B/1.png", "B/2.png"], "note": ["", text]})
    with pytest.raises(InputError, match="t.csv is not written: .* in column note as a formula"):
        write_table(tmp_path, "t.csv", table)
    assert not list(tmp_path.iterdir())


def test_numbers_and_plain_words_are_not_formulas(tmp_path):
    values = [-1.5, "-1.5", "-5 to 3", "a-b", "1+1=2", "a; b", None]
    table = pd.DataFrame({"value": pd.Series(values, dtype=object), "x": -1.0})
    write_table(tmp_path, "t.csv", table)
    assert len(pd.read_csv(tmp_path / "t.csv")) == len(values)


def test_the_results_page_contains_the_catalogue():
    page = (PROJECT_ROOT / "outputs" / "README.md").read_text(encoding="utf-8")
    assert as_markdown() in page


def test_result_tables_are_marked_when_written_and_others_are_not(run):
    table = pd.DataFrame({"first": ["ensemble"], "second": ["mobilenetv2"], "p": [0.5]})
    run.write("tables/pairwise.csv", table)
    run.write("tables/cost.csv", table)
    row = run.table("tables/pairwise.csv").iloc[0]
    assert (row["weights"], row["protocol"]) == ("pretrained and imagenet", "grouped")
    assert list(run.table("tables/cost.csv")) == list(table)


def test_a_table_read_may_be_modified_and_a_changed_file_is_read_again(run):
    run.facts("split.json")["leak"].clear()
    assert run.facts("split.json")["leak"]
    split, mine = run.table("split.csv"), run.table("split.csv")
    mine["label"] = "x"
    pd.testing.assert_frame_equal(run.table("split.csv"), split)
    run.write("split.csv", split.iloc[1:])
    assert len(run.table("split.csv")) == len(split) - 1


def test_a_table_without_a_required_column_is_damaged(run):
    run.write("split.csv", run.table("split.csv").drop(columns="fold"))
    with pytest.raises(InputError, match="split.csv cannot be read .it has no column fold."):
        run.table("split.csv")
