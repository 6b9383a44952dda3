"""The images that the parameter `data` names: the drawn sample, a published set or a folder."""

import pandas as pd

from cytology.data.sources.listing import Listing, folder
from cytology.data.sources.published import PUBLISHED, published
from cytology.data.sources.sample import HASHED, SEED, draw_sample, is_whole
from cytology.files import lock_file
from cytology.run import Run
from cytology.settings import HOME, InputError, resolve


def sample(images: int, patients: int) -> Listing:
    """The drawn sample; drawn again if it is missing or if a file has changed."""
    root = HOME / "data" / f"sample-{images}-images-{patients}-patients"
    root.parent.mkdir(parents=True, exist_ok=True)
    # If two runs start at once, one draws the sample and the other waits.
    with lock_file(root.with_name(f".{root.name}.lock")):
        if not is_whole(root):
            draw_sample(root, images, patients, SEED)
    listing = pd.read_csv(root / "sample.csv", dtype=str, keep_default_na=False)
    listing = listing.rename(columns={"image": "image_id"}).drop(
        columns=["copy_of", *HASHED.values(), "version"]
    )
    return Listing(
        root,
        listing,
        source="procedural sample: drawings, no medical data",
        classes={"B": "drawings of benign smears", "M": "drawings of malignant smears"},
    )


def load(
    data: str,
    classes: str = "",
    patient_pattern: str = "",
    patients_csv: str = "",
    sample_images: int = 320,
    sample_patients: int = 24,
    follow_links: bool = False,
    **of_published,
) -> Listing:
    """The images that `data` names: `sample`, a published set, or a folder.

    `of_published` holds the parameters of `published.published`. Raises `InputError`.
    """
    if not data:
        raise InputError(
            "Parameter `data` is empty: name a folder of images in two classes, or `sample`."
        )
    if data == "sample":
        return sample(sample_images, sample_patients)
    if data in PUBLISHED:
        return published(data, **of_published)
    return folder(resolve(data), classes, patient_pattern, patients_csv, follow_links)


def listing_of_run(run: Run) -> Listing:
    """The images that the parameters of notebook 01 name, before any is opened."""
    own = run.parameters.items()
    return load(**{name: value for name, value in own if name not in ("run_dir", "seed")})
