"""Masks are recognized as published sets name them, and images are not taken for masks."""

import pandas as pd
import pytest

from cytology.data.sources.masks import masks_by_colour, masks_by_name


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("benign/00 (0).png", "benign/00 (0)_mask.png"),  # BUSI
        ("benign/benign (100).png", "benign/benign (100)_mask_1.png"),
        ("B/ISIC_0012.jpg", "B/ISIC_0012_segmentation.png"),
        ("images/B/1.jpg", "masks/B/1.jpg"),  # Kvasir-SEG
        ("B/images/1.tif", "B/masks/1.png"),
        ("B/1.png", "B/Ground Truth/1.png"),
        ("Original/B/7.tif", "Ground Truth/B/7.tif"),  # CVC
        ("B/Slide_01/01_1.png", "B/GT_01/01_1.png"),  # TNBC nuclei
        ("train_1.bmp", "train_1_anno.bmp"),  # GlaS
        ("Images/B/train_1.png", "Overlay/B/train_1.png"),  # CoNSeP
        ("B/case1/image.png", "B/case1/mask.png"),
        ("B/img_001.png", "B/mask_001.png"),
        ("B/cell01.png", "B/cell01SegMask.png"),
        ("B/cell 01.png", "B/label cell 01.png"),
        ("B/x-1.tif", "B/x-1_ground-truth.tif"),
        ("B/Größe 1.tif", "B/Größe 1_Mask.tif"),
        ("B/scan7.tif", "B/scan7_macro.tif"),
        ("images/Case_1-01.tif", "groundTruth_display/Case_1-01.tif"),  # BreCaHAD
    ],
)
def test_a_mask_is_named_like_its_image_with_a_keyword(image, mask):
    others = ["B/2.png", "M/1.png"]
    assert masks_by_name([image, mask, *others]) == {mask: image}
    assert masks_by_name([mask, image, *others]) == {mask: image}, "in any order"


@pytest.mark.parametrize(
    "names",
    [
        ["B/1_seg.png", "M/2_seg.png"],  # segmented cells, and nothing else
        ["B/Mask Anna_1.png", "B/Berta_1.png"],
        ["labelled cells/B/1.png", "labelled cells/M/1.png"],
        ["B/thumb.png", "B/index.png"],
        ["B/1.png", "B/10.png", "B/1_2.png", "M/damasked_1.png"],
    ],
)
def test_a_keyword_alone_does_not_make_a_mask(names):
    assert masks_by_name(names) == {}


def test_every_file_in_a_mask_folder_is_a_mask():
    names = ["B/7/images/7.png", "B/7/masks/0a.png", "Masks/9.png", "B/masks of Venice/1.png"]
    assert masks_by_name(names) == {"B/7/masks/0a.png": "", "Masks/9.png": ""}


def opened(*rows):
    return pd.DataFrame(rows, columns=["image_id", "width", "height", "colours"])


def test_a_mask_has_few_colours_and_an_image_of_the_same_size_and_name():
    table = opened(
        ("B/149-001.bmp", 60, 70, 256),
        ("B/149-001-d.bmp", 60, 70, 4),  # Herlev
        ("B/149-002-d.bmp", 61, 70, 4),  # its image is of another size
        ("B/149-002.bmp", 60, 70, 256),
        ("M/p1/1.jpg", 60, 70, 256),
        ("M/p2/1.jpg", 60, 70, 256),
        ("M/p2/1.png", 60, 70, 2),  # the same name with another suffix
        ("M/p1/binary/1.png", 60, 70, 2),
        ("M/alone.png", 60, 70, 2),
        ("M/149-001-d.bmp", 60, 70, 17),  # colours enough
    )
    assert masks_by_colour(table) == {
        "B/149-001-d.bmp": "B/149-001.bmp",
        "M/p2/1.png": "M/p2/1.jpg",
        "M/p1/binary/1.png": "M/p1/1.jpg",
    }
