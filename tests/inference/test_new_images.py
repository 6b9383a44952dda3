"""New images: a folder, an archive, a list; and their patients."""

import os
import unicodedata
import zipfile

import pandas as pd
import pytest

from cytology.data.images.opening import UnreadableImage, open_rgb, opened
from cytology.inference import new_images as module
from cytology.inference.new_images import new_images
from cytology.settings import InputError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path, smear):
    """Two images in a folder with spaces and an umlaut, and a file that is not an image."""
    place = tmp_path / "neue Bilder ü"
    (place / "M").mkdir(parents=True)
    smear(1).save(place / "M" / "a ä.png")
    smear(2).save(place / "b.JPG")
    (place / "notes.md").write_text("no image")
    return place


def test_classes_and_patients_of_a_new_folder_are_read(tmp_path, smear):
    for name in ("normal/anna_1.png", "normal/anna_2.png", "Cancer/bea_1.png", "other/c_1.png"):
        (tmp_path / "new" / name).parent.mkdir(parents=True, exist_ok=True)
        smear(1).save(tmp_path / "new" / name)
    found = new_images(tmp_path / "new", "normal=B, cancer=M", r"/(?P<case>[a-z]+)_", "")
    assert found.unit == "case"
    assert found.table.set_index("image_id")[["label", "group"]].T.to_dict("list") == {
        "normal/anna_1.png": ["B", "anna"],
        "normal/anna_2.png": ["B", "anna"],
        "Cancer/bea_1.png": ["M", "bea"],
        "other/c_1.png": ["", "c"],
    }
    listed = tmp_path / "whose.csv"
    listed.write_text("image,patient\nanna_1.png,7\nbea_1.png,8\n", "utf-8")
    found = new_images(tmp_path / "new", "normal=B, cancer=M", "", str(listed))
    groups = found.table.set_index("image_id")["group"]
    assert found.unit == "patient" and groups["normal/anna_1.png"] == "7"
    assert groups["other/c_1.png"] == ""
    nobody = new_images(tmp_path / "new", "", "", "")
    assert nobody.unit == "" and (nobody.table[["label", "group"]] == "").all(axis=None)
    with pytest.raises(InputError, match="Parameter `images_classes` is 'x'"):
        new_images(tmp_path / "new", "x", "", "")
    with pytest.raises(InputError, match="Parameter `images_patient_pattern` 'zzz"):
        new_images(tmp_path / "new", "", "zzz", "")


def test_an_archive_is_unpacked_once(folder, cache, tmp_path, monkeypatch):
    packed = tmp_path / "neu ü.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder).as_posix())
    found = new_images(packed, "", "", "")
    assert found.table["image_id"].tolist() == ["M/a ä.png", "b.JPG"]
    assert found.table["label"].tolist() == ["M", ""] and found.name == str(packed)
    assert found.root.is_relative_to(cache) and (found.root / "M" / "a ä.png").is_file()
    monkeypatch.setattr(module, "unpack", None)
    again = new_images(packed, "", "", "")
    assert again.root == found.root and again.table.equals(found.table)


@pytest.mark.parametrize("form", ["txt", "csv", "xlsx"])
def test_paths_in_a_list_are_relative_to_the_list(folder, form):
    lines = ["M/a ä.png", "", "b.JPG", "M\\a ä.png", "gone.png"]
    head = [] if form == "txt" else ["image"]
    listed = folder / f"list.{form}"
    if form == "xlsx":
        pd.DataFrame({"image": lines}).to_excel(listed, index=False)
    else:
        listed.write_text("\n".join(head + lines), "utf-8-sig")
    found = new_images(listed, "", "", "")
    assert found.table["image_id"].tolist() == ["M/a ä.png", "b.JPG"]
    assert found.root == folder and found.name == str(listed)
    assert found.refused.to_numpy().tolist() == [["gone.png", "no such file"]]


def test_files_that_only_look_like_images_are_refused_with_a_reason(folder):
    (folder / "folder.png").mkdir()
    found = new_images(folder, "", "", "")
    assert found.refused.to_dict("records") == [
        {"image_id": "folder.png", "reason": "a folder that is named like an image"}
    ]
    assert len(found.table) == 2


def test_a_path_that_gives_no_images_is_refused_with_one_sentence(tmp_path, smear):
    with pytest.raises(InputError, match="There is no folder or file .*no: check the parameter"):
        new_images(tmp_path / "no", "", "", "")
    with pytest.raises(InputError, match=r"No image in .* It contains no file: check `images`"):
        new_images(tmp_path, "", "", "")
    smear(1).save(tmp_path / "one.png")
    with pytest.raises(InputError, match=r"`images` is the file .*one.png: it must be a folder"):
        new_images(tmp_path / "one.png", "", "", "")
    for name, content, words in (
        ("a.txt", b"\n \n", "names no image"),
        ("b.csv", b"picture\nx.png\n", "needs exactly one column named `image`"),
        ("c.csv", b"", "no column names"),
        ("d.txt", b"\xe4.png", "not UTF-8 text"),
        ("e.zip", b"PK no archive", "damaged, incomplete"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=words):
            new_images(tmp_path / name, "", "", "")
    assert not [path for path in os.listdir(tmp_path) if path.startswith(".unpacking")]


@pytest.mark.parametrize(
    ("packed", "words"),
    [
        (["inner.zip"], "It contains inner.zip: unpack inner.zip and name its folder."),
        (["a/inner.tar", "x.txt"], "unpack inner.tar and name its folder."),
        (["a.txt", "b.csv"], "It contains a.txt, b.csv: check `images`."),
    ],
)
def test_an_archive_without_images_is_refused_by_its_given_name(tmp_path, packed, words):
    given = tmp_path / "given.zip"
    with zipfile.ZipFile(given, "w") as archive:
        for name in packed:
            archive.writestr(name, "x")
    with pytest.raises(InputError) as error:
        new_images(given, "", "", "")
    assert str(error.value).startswith(f"No image in {given}. It contains ")
    assert str(error.value).endswith(words)


def test_an_error_about_two_class_names_on_a_path_names_the_parameter_of_new_images(
    tmp_path, smear
):
    (tmp_path / "M" / "benign").mkdir(parents=True)
    smear(1).save(tmp_path / "M" / "benign" / "a.png")
    with pytest.raises(
        InputError, match=r"'M' and 'benign': name the class folders with `images_classes`"
    ):
        new_images(tmp_path, "", "", "")
    assert new_images(tmp_path, "benign=B, cancer=M", "", "").table["label"].tolist() == ["B"]


@pytest.mark.parametrize("typed", ["NFC", "NFD"])
def test_a_list_in_another_unicode_form_matches_the_files_on_disk(tmp_path, smear, typed):
    on_disk = unicodedata.normalize("NFD" if typed == "NFC" else "NFC", "Größe/ü.png")
    (tmp_path / on_disk).parent.mkdir()
    smear(1).save(tmp_path / on_disk)
    outside = tmp_path.parent / "outside.png"
    smear(2).save(outside)
    lines = [unicodedata.normalize(typed, "Größe/ü.png"), on_disk, str(outside), "Größe/gone.png"]
    (tmp_path / "list.txt").write_text("\n".join(lines), encoding="utf-8")
    found = new_images(tmp_path / "list.txt", "", "", "")
    assert found.table["image_id"].tolist() == [on_disk, str(outside)]
    assert found.refused["reason"].tolist() == ["no such file"]


@pytest.mark.parametrize("line", ["//host/share/x.png", r"\\host\share\x.png", r"\\?\C:\x.png"])
def test_a_path_on_another_computer_is_not_opened(folder, line, monkeypatch):
    (folder / "list.txt").write_text(f"b.JPG\n{line}\n", "utf-8")
    asked, exists = [], os.path.exists
    monkeypatch.setattr(os.path, "exists", lambda path: asked.append(str(path)) or exists(path))
    found = new_images(folder / "list.txt", "", "", "")
    assert found.table["image_id"].tolist() == ["b.JPG"]
    assert found.refused.to_numpy().tolist() == [
        [line.replace("\\", "/"), "a path on another computer: copy the file to this one"]
    ]
    assert asked and not [path for path in asked if "x.png" in path]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("way", ["folder", "list"])
def test_a_pipe_is_named_and_not_waited_for(folder, way):
    os.mkfifo(folder / "x.png")
    (folder / "list.txt").write_text("b.JPG\nx.png\n", "utf-8")
    found = new_images(folder if way == "folder" else folder / "list.txt", "", "", "")
    assert "x.png" in set(found.table["image_id"])
    for read in (open_rgb, lambda path: opened(path).__enter__()):
        with pytest.raises(UnreadableImage, match="a pipe or a device, not a file"):
            read(found.root / "x.png")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_names_of_a_list_that_are_formulas_are_refused(folder):
    (folder / "b.JPG").rename(folder / "=1+1.JPG")
    lines = ["./=1+1.JPG", "=gone.png", "x" * 5000, "M/a ä.png"]
    (folder / "list.txt").write_text("\n".join(lines), "utf-8")
    found = new_images(folder / "list.txt", "", "", "")
    assert found.table["image_id"].tolist() == ["M/a ä.png"]
    names, reasons = found.refused.T.to_numpy().tolist()
    assert names == ["./=1+1.JPG", r"\u003dgone.png", "x" * 5000]
    assert "formula in a spreadsheet" in reasons[0] and reasons[1:] == ["no such file"] * 2


def test_the_place_and_size_of_an_unpacked_archive_are_reported(folder, cache, tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "new.zip", "w") as archive:
        archive.write(folder / "b.JPG", "b.JPG")
        archive.writestr("notes.txt", bytes(2_000_000))
    root = new_images(tmp_path / "new.zip", "", "", "").root
    said = capsys.readouterr().out
    assert f"NOTE: new.zip was unpacked to {root} (2.0 MB): delete that folder" in said
