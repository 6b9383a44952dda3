"""New images: a folder, an archive, a list; whose they are."""

import os
import zipfile

import pytest

from cytology import new_images as module
from cytology.new_images import new_images
from cytology.settings import InputError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path, smear):
    """Two images in a folder with spaces and an umlaut, and a file that is none."""
    place = tmp_path / "neue Bilder ü"
    (place / "M").mkdir(parents=True)
    smear(1).save(place / "M" / "a ä.png")
    smear(2).save(place / "b.JPG")
    (place / "notes.md").write_text("no image")
    return place


def test_classes_and_patients_of_a_new_folder(tmp_path, smear):
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
    assert found.table["label"].tolist() == ["M", ""]
    assert found.root.is_relative_to(cache) and (found.root / "M" / "a ä.png").is_file()
    monkeypatch.setattr(module, "unpack", None)
    again = new_images(packed, "", "", "")
    assert again.root == found.root and again.table.equals(found.table)


@pytest.mark.parametrize("form", ["txt", "csv"])
def test_a_list_names_images_from_where_it_lies(folder, form):
    lines = ["M/a ä.png", "", "b.JPG", "M\\a ä.png", "gone.png"]
    head = ["image"] if form == "csv" else []
    listed = folder / f"list.{form}"
    listed.write_text("\n".join(head + lines), "utf-8-sig")
    found = new_images(listed, "", "", "")
    assert found.table["image_id"].tolist() == ["M/a ä.png", "b.JPG", "gone.png"]
    assert found.root == folder and found.refused.empty


def test_what_only_looks_like_an_image_is_refused_with_its_reason(folder):
    (folder / "folder.png").mkdir()
    found = new_images(folder, "", "", "")
    assert found.refused.to_dict("records") == [
        {"image_id": "folder.png", "reason": "a folder that is named like an image"}
    ]
    assert len(found.table) == 2


def test_what_names_no_images_is_refused_in_a_sentence(tmp_path, smear):
    with pytest.raises(InputError, match="There is no folder or file .*no: check the parameter"):
        new_images(tmp_path / "no", "", "", "")
    with pytest.raises(InputError, match="No JPEG, PNG, BMP or TIFF file in"):
        new_images(tmp_path, "", "", "")
    smear(1).save(tmp_path / "one.png")
    with pytest.raises(InputError, match=r"`images` is the file .*one.png: it must be a folder"):
        new_images(tmp_path / "one.png", "", "", "")
    for name, content, words in (
        ("a.txt", b"\n \n", "names no image"),
        ("b.csv", b"picture\nx.png\n", "no column `image`"),
        ("c.csv", b"", "no names of columns"),
        ("d.txt", b"\xe4.png", "no text in UTF-8"),
        ("e.zip", b"PK no archive", "damaged or incomplete"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=words):
            new_images(tmp_path / name, "", "", "")
    assert not [path for path in os.listdir(tmp_path) if path.startswith(".unpacking")]
