"""A copy of a run that can be given away: no name is in it, and it still answers."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cytology.architectures import ARCHITECTURE_NAMES
from cytology.evaluation.operating_points import locked_thresholds
from cytology.evaluation.predictions import predictions_fingerprint
from cytology.files import file_hash
from cytology.inference.similarity import read_reference, reference, write_reference
from cytology.plots.style import save_figure
from cytology.report import sharing
from cytology.report.pseudonyms import pseudonyms, with_pseudonyms
from cytology.report.sharing import Search, contents_of, share
from cytology.run import Run
from cytology.settings import PROJECT_ROOT, InputError
from cytology.tables import read_json, read_table, write_json, write_table, write_text

PEOPLE = [
    "Bärbel Ødegård-Müller, née O'Connor of the Long Meadow",
    "Maria Guadalupe Etxeberria & Sons <maria@clinic.example>",
    "Nguyễn Thị Minh Khai ($x$, 1948-02-11)",
    "ZZ-Top_Secret.Patient.Number.4711/08 {of} 100 %",
    "'Quoted' \"Doubly\" Æsop `Tick`",
    "Łukasz Żółć-Brzęczyszczykiewicz [ward 7]",
]


def unpacked(data):
    """All bytes of a file, with what ZIP, base64 and PNG hold; written apart from `sharing`."""
    yield data
    if data[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield name.encode()
                yield from unpacked(archive.read(name))
    if data[:6] == b"\x93NUMPY":
        array = np.load(io.BytesIO(data))
        yield "\n".join(map(str, array.ravel())).encode() if array.dtype.kind == "U" else b""
    if data[:4] == b"\x89PNG":
        with Image.open(io.BytesIO(data)) as picture:
            yield repr(picture.info).encode()
    for packed in re.findall(rb"base64,([A-Za-z0-9+/=]+)", data):
        yield from unpacked(base64.b64decode(packed))


def files_with_names(folder, names):
    """(file, name) wherever a file below `folder` holds one of `names`."""
    return [
        (path.name, name)
        for path in folder.rglob("*")
        if path.is_file()
        for content in unpacked(path.read_bytes())
        for name in names
        if name.encode() in content
    ]


# ------------------------------------------------------------------------ slow


def make_images(root):
    """18 patients with odd names by CSV, 3 images each; returns (folder, CSV, names of files)."""
    rng, rows = np.random.default_rng(0), []
    for patient in range(18):
        for number in range(3):
            label = "BM"[patient % 2]
            name = f"Wärd {patient} of Dr. Quincannon-{number} Ψ.png"
            (root / label).mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 180, (12, 16, 3)) + 60 * (label == "M")
            picture = Image.fromarray(pixels.astype(np.uint8)).resize((128, 96))
            picture.save(root / label / name)
            rows.append((f"{label}/{name}", f"{PEOPLE[patient % len(PEOPLE)]} {patient}"))
    table = root.parent / "people of Saint Elsewhere.csv"
    pd.DataFrame(rows, columns=["image", "patient"]).to_csv(table, index=False)
    return table


def run_all(*arguments):
    return subprocess.run(
        [sys.executable, PROJECT_ROOT / "run_all.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such file names")
def test_a_whole_run_is_shared_without_names_and_still_works(tmp_path):
    images, run, shared = (tmp_path / name for name in ("Hôpital Saint Elsewhere", "run", "given"))
    table = make_images(images)
    done = run_all(
        *("--profile", "smoke", "--run-dir", run, "--data", images, "--jobs", 2),
        *("-p", "patients_csv", table, "-p", "weights", "random"),
        *("--only", "01", "02", "03", "04", "07", "08", "09", "11", "12", "13"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = (run / "report.html").read_text("utf-8")
    manifest = read_table(run, "manifest.csv")
    names = {*PEOPLE, *manifest["image_id"], *manifest["group"], *manifest["patient"]}
    names |= {"Quincannon", "Ødegård", "Etxeberria", "Saint Elsewhere", str(tmp_path)}
    assert files_with_names(run, names)
    assert not [name for name in names if name in report]

    done = run_all("--run-dir", run, "--share", shared)
    assert done.returncode == 0, done.stdout + done.stderr
    assert files_with_names(shared, names) == []
    assert (shared / "report.html").stat().st_size > 100_000

    shutil.move(run, tmp_path / "elsewhere")
    done = run_all("--run-dir", shared, "--only", "09", "-p", "images", images)
    assert done.returncode == 0, done.stdout + done.stderr
    again = read_table(shared, "inference/predictions.csv").set_index("image_id")
    assert len(again) == len(manifest) and again["nearest"].str.fullmatch(r"image \d+").all()
    before = read_table(tmp_path / "elsewhere", "inference/predictions.csv").set_index("image_id")
    pd.testing.assert_frame_equal(
        again.loc[before.index, ["logit", "probability", "predicted", "refer_why", "distance"]],
        before[["logit", "probability", "predicted", "refer_why", "distance"]],
        atol=1e-4,
    )


# ------------------------------------------------------------------------ fast


@pytest.fixture(scope="module")
def named_run_once(run_once, few_draws, tmp_path_factory):
    """The run of `conftest`, with odd names, facts, a model, its reference, figures and tables."""
    run = shutil.copytree(run_once, tmp_path_factory.mktemp("odd") / "run")
    manifest = read_table(run, "manifest.csv")
    groups = sorted(set(manifest["group"]))
    person = {group: f"{PEOPLE[k % len(PEOPLE)]} {k}" for k, group in enumerate(groups)}
    files = [f"{label}/Wärd of Dr. Quincannon {k}.png" for k, label in enumerate(manifest["label"])]
    named = dict(zip(manifest["image_id"], files, strict=True))
    manifest["patient"] = manifest["group"].map(person)
    for name in (
        "manifest.csv",
        "split.csv",
        *(f"{n}/predictions.csv" for n in ARCHITECTURE_NAMES),
    ):
        table = manifest if name == "manifest.csv" else read_table(run, name)
        table = table.assign(
            image_id=table["image_id"].map(named), group=table["group"].map(person)
        )
        write_table(run, name, table)
    root = "/home/quincannon/Saint Elsewhere"
    facts = {"data": root, "root": root, "source": "folder", "images": len(manifest)}
    write_json(run, "dataset.json", facts | {"notes": [f"Of {PEOPLE[0]} one image is a copy."]})
    parameters = {"data": root, "patient_pattern": "(Bärbel.*)_", "seed": 3, "fit": "pad"}
    entry = {
        "status": "ok",
        "parameters": parameters,
        "error": PEOPLE[1],
        "inputs": {files[0]: "0"},
    }
    record = {"profile": "quick", "command": f"python run_all.py --data '{root}'"}
    record |= {"parameters": parameters, "notebooks": {"01_data_exploration": entry}}
    write_json(run, "run.json", record)
    for network in ARCHITECTURE_NAMES:
        with zipfile.ZipFile(run / network / "model.keras", "w", zipfile.ZIP_DEFLATED) as model:
            model.writestr("config.json", json.dumps({"class_name": "Functional"}))
            model.writestr("model.weights.h5", np.random.default_rng(0).bytes(200_000))
    known = reference(read_table(run, "split.csv"), np.random.default_rng(0).normal(size=(90, 4)))
    write_reference(
        run / "mobilenetv2" / "reference.npz",
        known,
        file_hash(run / "mobilenetv2/model.keras"),
        0.1,
    )
    write_table(run, "tables/thresholds.csv", locked_thresholds(Run(run), 0.95))
    write_table(run, "tables/quality.csv", manifest[["image_id"]])
    write_text(run, "tables/summary.md", "DenseNet121 separates the classes best.\n")
    figure, axis = plt.subplots(figsize=(2, 2))
    axis.set_title("group 07")
    save_figure(Run(run), "03_who_is_where", figure, "Who is where")
    return run


@pytest.fixture
def named_run(named_run_once, tmp_path):
    """A copy of it, to be changed."""
    return shutil.copytree(named_run_once, tmp_path / "run")


NAMES = {*PEOPLE, "Wärd of Dr. Quincannon", "quincannon", "Saint Elsewhere", "Bärbel"}


def test_a_copy_contains_everything_needed_and_no_name(named_run, tmp_path):
    folder = tmp_path / "given"
    assert files_with_names(named_run, NAMES)
    files = share(Run(named_run), folder)
    assert files_with_names(folder, NAMES) == [] and files_with_names(folder, [str(tmp_path)]) == []
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")} == set(files)
    assert {"report.html", "model_card.md", "tables/thresholds.csv", "tables/summary.md"} <= {
        *files
    }
    assert {"mobilenetv2/model.keras", "mobilenetv2/reference.npz", "split.csv"} <= {*files}
    assert not {"manifest.csv", "tables/quality.csv", "pseudonyms.csv"} & {*files}
    assert read_json(folder, "run.json")["parameters"] == {"seed": 3, "fit": "pad"}
    page = (folder / "report.html").read_text("utf-8")
    assert "Who is where" in page and "DenseNet121 separates the classes best." in page


def test_a_copy_preserves_every_number(named_run, tmp_path):
    share(Run(named_run), tmp_path / "given")
    key = pseudonyms(read_table(named_run, "manifest.csv")).set_index("name")["pseudonym"]
    for name in ("split.csv", "densenet121/predictions.csv"):
        before = read_table(named_run, name).drop(columns="sha256", errors="ignore")
        for column in ("image_id", "group"):
            kind = {"image_id": "image", "group": "group"}[column]
            named = key[key.str.startswith(kind)]
            before[column] = before[column].map(named)
        after = read_table(tmp_path / "given", name)
        before = before.sort_values("image_id", kind="stable", ignore_index=True)
        pd.testing.assert_frame_equal(after, before)


def test_thresholds_and_reference_of_a_copy_remain_locked_to_its_predictions(named_run, tmp_path):
    folder = tmp_path / "given"
    share(Run(named_run), folder)
    rows = read_table(folder, "tables/thresholds.csv").groupby("model")["predictions"]
    for network, hashes in rows:
        assert (
            set(hashes)
            == {predictions_fingerprint(Run(folder), network)}
            != {predictions_fingerprint(Run(named_run), network)}
        )
    model = file_hash(folder / "mobilenetv2" / "model.keras")
    before, _ = read_reference(named_run / "mobilenetv2" / "reference.npz", model)
    after, falsely = read_reference(folder / "mobilenetv2" / "reference.npz", model)
    assert falsely == 0.1 and after.limit == before.limit
    assert set(after.table["image_id"]) == set(read_table(folder, "split.csv")["image_id"])


def plant_in_model(run):
    with zipfile.ZipFile(run / "mobilenetv2" / "model.keras", "a") as model:
        model.writestr("metadata.json", json.dumps({"by": PEOPLE[0]}, ensure_ascii=False))


def plant_in_weights(run):
    with zipfile.ZipFile(run / "mobilenetv2" / "model.keras", "a") as model:
        model.writestr("more.h5", b"\xff\xfe" + PEOPLE[2].encode() + b"\xff")


def plant_in_figure(run):
    save_figure(Run(run), "03_odd", plt.figure(figsize=(1, 1)), f"All of {PEOPLE[3]}")


@pytest.mark.parametrize(
    "plant, file",
    [
        (lambda run: write_text(run, "tables/leakage.md", f"All: {PEOPLE[5]} 5."), "leakage.md"),
        (
            lambda run: write_text(run, "tables/leakage.md", "as B/Wärd of Dr. Quincannon 7.png"),
            "md",
        ),
        (plant_in_model, "mobilenetv2/model.keras"),
        (plant_in_weights, "mobilenetv2/model.keras"),
        (plant_in_figure, "figures/03_odd.png"),
    ],
)
def test_a_copy_that_contains_a_name_is_refused(named_run, tmp_path, plant, file):
    for name in ("manifest.csv", "split.csv"):  # people as they stand in `PEOPLE`
        table = read_table(named_run, name)
        table["group"] = table["group"].str.rsplit(n=1).str[0]
        if name == "manifest.csv":
            table["patient"] = table["group"]
        write_table(named_run, name, table)
    for network in ARCHITECTURE_NAMES:
        table = read_table(named_run, f"{network}/predictions.csv")
        table["group"] = table["group"].str.rsplit(n=1).str[0]
        write_table(named_run, f"{network}/predictions.csv", table)
    (named_run / "mobilenetv2" / "reference.npz").unlink()
    plant(named_run)
    with pytest.raises(InputError, match="nothing was written") as refused:
        share(Run(named_run), tmp_path / "given")
    assert file in str(refused.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_outdated_and_broken_figures_are_not_copied(named_run, tmp_path):
    Image.new("RGB", (9, 9)).save(named_run / "figures" / "01_gallery.png")
    (named_run / "figures" / "02_fit.png").write_bytes(b"no picture")
    shared = share(Run(named_run), tmp_path / "given")
    assert [name for name in shared if "figures" in name] == ["figures/03_who_is_where.png"]


@pytest.mark.parametrize(
    "options, told",
    [
        (["--only", "09"], "only --run-dir can be combined with it"),
        (["--verify", "x"], "only --jobs can be combined with it"),
        ([], "run.json is missing in"),
    ],
)
def test_a_run_that_cannot_be_shared_is_refused_in_one_sentence(tmp_path, options, told):
    done = run_all("--run-dir", tmp_path / "run", "--share", tmp_path / "given", *options)
    if "--verify" in options:
        done = run_all("--share", tmp_path / "given", *options)
    assert done.returncode == 2 and done.stdout == ""
    assert told in done.stderr and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_run_with_a_link_to_the_outside_is_not_shared(named_run, tmp_path):
    (tmp_path / "private.csv").write_text("diary\n1\n")
    (named_run / "tables" / "cost.csv").unlink(missing_ok=True)
    (named_run / "tables" / "cost.csv").symlink_to(tmp_path / "private.csv")
    with pytest.raises(InputError, match="a link that leads out of it, tables.cost.csv"):
        share(Run(named_run), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_copy_is_written_only_to_an_empty_folder_outside_the_run(named_run, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    for folder in (tmp_path / "full", tmp_path / "full" / "thesis.txt"):
        with pytest.raises(InputError, match="holds something already"):
            share(Run(named_run), folder)
    assert (tmp_path / "full" / "thesis.txt").read_text() == "mine"
    with pytest.raises(InputError, match="inside the run"):
        share(Run(named_run), named_run / "given")
    with pytest.raises(InputError, match=r"run\.json is missing"):
        share(Run(tmp_path / "full"), tmp_path / "given")
    (tmp_path / "empty").mkdir()
    assert share(Run(named_run), tmp_path / "empty")


def test_names_are_found_in_bytes_and_text(monkeypatch):
    names = {name.encode() for name in ("Anna", "Bo Derek", "Müller-Lüdenscheidt", "B/x.png")}
    search = Search(names)

    def found(data, is_text=True):
        return {name.decode() for name in search.within(data, is_text)}

    assert found(b"") == found(b"A") == found(b"Ann") == set()
    assert found(b"Anna") == found(b"by Anna.") == {"Anna"}
    assert found(b"Annabel") == found(b"Hanna") == found("Annaë".encode()) == set()
    assert found(b"xBo Derekx") == {"Bo Derek"}  # too long to be a coincidence
    assert found(b"\xffAnna\xff", is_text=False) == set()
    assert found("\0Müller-Lüdenscheidt\0".encode(), is_text=False) == {"Müller-Lüdenscheidt"}
    monkeypatch.setattr(sharing, "PART", 5)
    assert found(b"B/x.png, Anna, Bo Derek") == {"B/x.png", "Anna", "Bo Derek"}


def test_compressed_content_is_searched():
    inner, outer, array = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("deep/Anna.txt", "Bo Derek")
    address = (
        f"<img src='data:application/zip;base64,{base64.b64encode(inner.getvalue()).decode()}'>"
    )
    np.save(array, np.array(["Carol Ng"]))
    with zipfile.ZipFile(outer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("page.html", f"{address} D&#39;Arcy")
        archive.writestr("array.npy", array.getvalue())
    seen = b"\n".join(content for content, _ in contents_of(outer.getvalue())).decode()
    picture, about = io.BytesIO(), PngInfo()
    about.add(b"tEXt", b"Author\0Eve Okoye", after_idat=True)
    Image.new("L", (9, 9)).save(picture, "PNG", pnginfo=about)
    told = [content for content, is_text in contents_of(picture.getvalue()) if is_text]
    assert b"Eve Okoye" in told[0]
    for text in ("deep/Anna.txt", "Bo Derek", "Carol Ng", "D'Arcy", "page.html"):
        assert text in seen, text


# ------------------------------------------------------------------ pseudonyms


def test_pseudonyms_reveal_nothing_and_are_stable(manifest):
    shuffled = np.random.default_rng(1).permutation(len(manifest))
    manifest["sha256"] = [f"{number:064x}" for number in shuffled]
    manifest["patient"] = manifest["group"]
    key = pseudonyms(manifest)
    assert key["pseudonym"].is_unique and set(key["kind"]) == {"patient", "group", "image"}
    people = key[key["kind"] == "patient"]
    assert len(people) == 30 and people["pseudonym"].str.fullmatch(r"patient \d\d").all()
    assert list(people["name"]) != sorted(people["name"])
    again = pseudonyms(manifest.sample(frac=1, random_state=0))
    pd.testing.assert_frame_equal(again, key)
    same = manifest.assign(patient="x" + manifest["patient"])
    assert list(pseudonyms(same)["pseudonym"]) == list(key["pseudonym"])
    # A patient who is a group of her own has the same number as both.
    groups = key[key["kind"] == "group"]
    assert list(groups["pseudonym"].str[-2:]) == list(people["pseudonym"].str[-2:])


def test_a_name_without_a_pseudonym_is_reported(manifest):
    hidden = with_pseudonyms(manifest, manifest, ("image_id", "group"))
    assert not set(hidden["image_id"]) & set(manifest["image_id"])
    with pytest.raises(InputError, match="knows no group 'stranger'"):
        with_pseudonyms(pd.DataFrame({"group": ["stranger"]}), manifest)
