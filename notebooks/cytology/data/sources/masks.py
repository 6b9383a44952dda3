"""Recognizes masks and other drawings among the images, so no network is trained on them.

Published sets put them next to their images (`00 (0)_mask.png`), below them (`masks/00.png`) or in
a separate tree (`Ground Truth/B/00.tif`). A drawing is recognized by its name if there is a file
with the same name but without a word like *mask*, otherwise by its few exact colours.
"""

import re
from collections import defaultdict

import pandas as pd

from cytology.wording import composed

# Words for drawings over an image, by hand or by a program, and for pictures of the whole slide.
_DRAWN = set(
    "mask masks masked seg segm segs segment segments segmented segmentation segmentations gt gts "
    "groundtruth truth ground label labels labelled labeled labelmap annotation annotations annot "
    "anno annotated contour contours outline outlines boundary boundaries overlay overlays display "
    "manual heatmap heatmaps macro thumb thumbs thumbnail thumbnails".split()
)
# Words for the image itself, which the name of its mask may lack.
PLAIN = set("image images img imgs raw original originals orig photo photos slide slides".split())
MASK_FOLDERS = {"mask", "masks"}
MASK_FOLDER = "in a folder of masks"  # the reason to leave a file out if its image is unknown
FEW_COLOURS = 16  # a stained smear has thousands, also in a palette of 256
MASK_WORDS = re.compile(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+(?![^\W\d_A-Z])|\d+")


def masks_by_name(image_ids: list[str]) -> dict[str, str]:
    """The files that are masks by their name, each with its image's id (empty if unknown).

    A file is a mask if its path below the data folder has a word of `DRAWN`, and without the word
    is the path of another file; or if it is in a folder named `masks`.
    """
    plain, drawn = defaultdict(list), {}
    for image_id in image_ids:
        words = words_of(image_id)
        if _DRAWN.isdisjoint(words):
            plain[tuple(word for word in words if word not in PLAIN)].append(image_id)
        else:
            drawn[image_id] = words
    found = {}
    for image_id, words in drawn.items():
        partner = next((plain[key][0] for key in keys_without(words) if key in plain), None)
        folders = {composed(part).strip().lower() for part in image_id.split("/")[:-1]}
        if partner is not None:
            found[image_id] = partner
        elif folders & MASK_FOLDERS:
            found[image_id] = ""
    return found


def words_of(image_id: str) -> list[str]:
    """The words and numbers of a path without suffix, in lower case: `a/ImgMask_01` has 4."""
    stem = re.sub(r"\.\w{1,5}$", "", composed(image_id))
    return [word.lower() for word in MASK_WORDS.findall(stem)]


def keys_without(words: list[str]) -> list[tuple[str, ...]]:
    """The words without those of `DRAWN` and `PLAIN`: once with the number after a drawn word, once
    without it, since the second mask of an image may be named `..._mask_1`."""
    every = tuple(word for word in words if word not in _DRAWN | PLAIN)
    fewer = tuple(
        word
        for before, word in zip(["", *words], words, strict=False)
        if word not in _DRAWN | PLAIN and not (word.isdigit() and before in _DRAWN)
    )
    return [every, fewer]


def masks_by_colour(readable: pd.DataFrame) -> dict[str, str]:
    """The files of `readable` with few colours for which there is an image of their size and name.

    The image has the same name with another suffix or folder, or the beginning of the name
    (`149056321-001.bmp` and `149056321-001-d.bmp`). `readable` has `image_id`, `width`, `height`
    and `colours`. Returns the id of the image for each.
    """
    few = readable["colours"] <= FEW_COLOURS
    images = defaultdict(list)
    for row in readable[~few].itertuples():
        words = words_of(row.image_id.rsplit("/", 1)[-1])
        images[tuple(words), row.width, row.height].append(row.image_id)
    found = {}
    for row in readable[few].itertuples():
        words = words_of(row.image_id.rsplit("/", 1)[-1])
        keys = [(tuple(words[:end]), row.width, row.height) for end in range(len(words), 0, -1)]
        partners = [image_id for key in keys for image_id in images.get(key, ())]
        if partners:
            # Names like `1.png` occur in many folders: the image nearest to the mask is meant.
            found[row.image_id] = max(
                partners, key=lambda other: shared_folders(other, row.image_id)
            )
    return found


def shared_folders(one: str, other: str) -> int:
    """How many leading folders two paths have in common."""
    pairs = zip(one.split("/"), other.split("/"), strict=False)
    return next((k for k, (a, b) in enumerate(pairs) if a != b), 0)
