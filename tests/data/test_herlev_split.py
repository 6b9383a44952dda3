"""A real folder as a public repository made it: turned copies in train, seven classes, no val."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from cytology.data.copies import find_copies
from cytology.data.crossing import COPIES, FILES, check_given_split
from cytology.data.inspection import inspect_images
from cytology.data.load import load
from cytology.data.manifest import build_manifest
from cytology.data.outside_split import read_given_split, split_from
from cytology.data.splitting import assert_no_leak
from cytology.settings import PROJECT_ROOT

HERLEV = PROJECT_ROOT.parent / "shared" / "data" / "herlev"
CLASSES = "normal-superficiel=B, normal-intermediate=B, normal-columnar=B, light-dysplastic=M, "
CLASSES += "moderate-dysplastic=M, severe-dysplastic=M, carcinoma-in-situ=M"
PATTERN = r"_(?P<field_of_view>\d+)-"
TURNS = (None, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)


def make_repository(root, trained=716):
    """`trained` cells in four turns in `train`, the others in `test`: (names in each)."""
    files = sorted(path for path in HERLEV.rglob("*.jpeg"))
    order = np.random.default_rng(0).permutation(len(files))
    parts = {
        "train": [files[k] for k in order[:trained]],
        "test": [files[k] for k in order[trained:]],
    }
    for part, paths in parts.items():
        for path in paths:
            folder = root / part / path.name.split("_")[0]
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / path.name)
            for turn in TURNS[1:] if part == "train" else ():
                with Image.open(path) as cell:
                    name = f"{path.stem}-turned{turn.value}.jpeg"
                    cell.transpose(turn).save(folder / name, quality=95)
    return {part: [path.name for path in paths] for part, paths in parts.items()}


def judged(root, cache):
    readable, _ = inspect_images(load(str(root), CLASSES, PATTERN), cache)
    manifest = build_manifest(readable, find_copies(readable))
    given = read_given_split(manifest, "folders")
    return manifest, given, check_given_split(given.images, "field of view")


@pytest.mark.slow
@pytest.mark.skipif(not HERLEV.is_dir(), reason="../shared has no Herlev cells")
def test_every_image_of_a_public_split_is_checked(tmp_path):
    names = make_repository(tmp_path / "data")
    assert (len(names["train"]), len(names["test"])) == (716, 121)
    manifest, given, verdict = judged(tmp_path / "data", tmp_path / "cache")
    assert len(manifest) == 4 * 716 + 121

    fields = {part: [re.search(PATTERN, name) for name in names[part]] for part in names}
    known = {found[1] for found in fields["train"] if found}
    shared = sum(1 for found in fields["test"] if found and found[1] in known)
    assert 0 < shared < 121
    touched = verdict.touched["test"]
    assert (touched[FILES], touched[COPIES], touched["fields of view"]) == (0, 0, shared)
    assert touched["any"] == shared and verdict.touched.loc[COPIES, "crossings"] == 0

    split, _ = split_from(given, "grouped", 5, 0.15, seed=0)
    assert_no_leak(split, manifest)

    planted = np.random.default_rng(1).permutation(names["train"])[:30]
    for number, name in enumerate(planted):
        kind = name.split("_")[0]
        with Image.open(tmp_path / "data" / "train" / kind / name) as cell:
            turned = cell.transpose(TURNS[1 + number % 3])
            place = tmp_path / "data" / "test" / kind
            turned.save(place / f"planted{number:02}.jpeg", quality=80)
    _, _, verdict = judged(tmp_path / "data", tmp_path / "cache")
    assert verdict.touched.loc[COPIES].to_dict() == {"crossings": 30, "val": 0, "test": 30}
    copies = verdict.crossings[verdict.crossings["kind"] == COPIES]
    found = copies["other"].str.split("/").str[-1]
    assert sorted(found) == [f"planted{number:02}.jpeg" for number in range(30)]
    assert verdict.touched.loc["any", "test"] == shared + 30
