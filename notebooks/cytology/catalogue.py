"""Every file of a run: who writes it, who reads it, and of which types its columns or facts are."""

from fnmatch import fnmatch

from cytology.architectures import TRAINING_NOTEBOOKS

VERIFICATION = "verification.json"  # how the run compared with the same run again


# Codes, not numbers: patient 007 must not become 7.
TEXT = dict.fromkeys(
    ["image_id", "label", "patient", "slide", "group", "sha256", "phash", "family", "stain", "mask"]
    + ["split", "model", "architecture", "reason", "finding", "other", "detail", "site", "subtype"]
    + ["category", "magnification", "protocol", "labels", "level", "judged_on", "rule"]
    + ["chosen_on", "fitted_on", "method", "first", "second", "certainty", "weights", "recipe"]
    + ["predictions", "shift", "amount", "column", "left_out", "interval", "device"]
    + ["check", "asks", "kind", "map", "chance_of", "passed", "noise_passed"]
    + ["neighbour", "nearest", "nearest_label"]
    + ["refer_why", "converted", "format", "file", "warning", "note"],
    "str",
)


# Columns that name a patient or a file; `row` names rows of other tables.
NAMING = {"image_id", "patient", "slide", "group", "other", "neighbour", "nearest", "row"}


# Who writes what; a name with a star stands for many files.
WRITTEN_BY = {
    **dict.fromkeys(
        ("dataset.json", "manifest.csv", "rejected.csv", "unseen.csv", "pseudonyms.csv")
        + ("tables/quality.csv", "tables/appearance.csv"),
        "01_data_exploration",
    ),
    "augmentation.json": "02_augmentation",
    **dict.fromkeys(("split.csv", "split.json"), "03_splitting"),
    **{
        f"{name}/{file}": notebook
        for name, notebook in TRAINING_NOTEBOOKS.items()
        for file in ("predictions.csv", "history.csv", "metrics.json", "timing.json", "model.keras")
        + ("heads.npz", "strengths.csv", "orientations.csv")
    },
    "densenet121/model.h5": "06_train_densenet121",
    **{
        f"tables/{name}.csv": "07_comparison"
        for name in ("comparison", "comparison_all", "pairwise", "thresholds", "calibration")
        + ("seeds", "folds", "abstention", "decision_curve", "learning_curve", "orientations")
        + ("strengths", "coverage", "cost")
    },
    "tables/summary.md": "07_comparison",
    **dict.fromkeys(("inference/*.csv", "*/reference.npz"), "08_inference"),
    **{
        f"tables/{name}": "09_leakage_audit"
        for name in ("leakage_audit.csv", "leakage_summary.csv", "leakage.md")
    },
    **{
        f"tables/robustness{rest}": "10_robustness"
        for rest in (".csv", "_pictures.csv", "_domains.csv", ".md")
    },
    **{
        f"tables/{name}": "11_explanation"
        for name in ("explanation_checks.csv", "explanation_pictures.csv", "explanation.md")
        + ("neighbours.csv",)
    },
    **dict.fromkeys(("tables/exports.csv", "exports/*", "model_card.md"), "12_export"),
}


def written_by(name: str) -> str | None:
    """The notebook that writes the file `name` of a run folder; None if none is known to."""
    matching = (notebook for pattern, notebook in WRITTEN_BY.items() if fnmatch(name, pattern))
    return WRITTEN_BY.get(name) or next(matching, None)


ANY = "*"  # every key of an object


MAYBE_TEXT = (str, type(None))


NUMBER = (int, float, type(None))


TEXTS = [str]


NOTEBOOK = {
    **dict.fromkeys(("status", "started", "error", "code"), str),
    **dict.fromkeys(("seconds", "peak_memory_mib"), NUMBER),
    "ended": MAYBE_TEXT,
    **dict.fromkeys(("parameters", "inputs", "outside", "outputs"), {}),
    "versions": {ANY: str},
}


# A key with an exclamation mark must be there, any other key may be, of any type if not named.
SHAPES = {
    "dataset.json": {
        "images": int,
        **dict.fromkeys(("benign", "malignant", "groups", "families", "rejected", "unseen"), int),
        "of_unknown_unit": int,
        **dict.fromkeys(("data", "root", "source", "unit", "fingerprint"), str),
        "notes": TEXTS,
        "classes": {ANY: str},
    },
    "split.json": {
        **dict.fromkeys(("protocol", "unit", "fingerprint"), str),
        "counts": {ANY: {ANY: int}},
        "leak": {
            **dict.fromkeys(("test_images!", "groups!", ANY), int),
            "test_images_with_copy_in_training!": int,
            "groups_in_several_splits!": int,
        },
    },
    "run.json": {
        **dict.fromkeys(("profile", "command", "started", "ended", "device"), MAYBE_TEXT),
        "fingerprint": MAYBE_TEXT,
        "parameters": {},
        "notebooks": {ANY: NOTEBOOK},
        "grid": {ANY: NOTEBOOK},
        "versions": {ANY: str},
        "git": {"commit": str, "changed": bool},
    },
    "*/metrics.json": {
        **dict.fromkeys(("explanation", "recipe", "fit", "precision", "weights"), str),
        "image_size": int,
        "seed": int,
    },
    "*/timing.json": {"parameters": int, "device": str},
    "verification.json": {"verified!": str, "files!": int, "different!": int},
}


def wrong(name: str, content) -> str:
    """What of the JSON file `name` is of another type than it must be; empty if nothing."""
    shape = next((shape for pattern, shape in SHAPES.items() if fnmatch(name, pattern)), {})
    return _wrong(content, shape, "")


def _wrong(content, shape, place: str) -> str:
    if isinstance(shape, dict):
        if not isinstance(content, dict):
            return f"{place or 'it'} holds no facts by name"
        needed = {key.rstrip("!"): kind for key, kind in shape.items() if key.endswith("!")}
        lacking = next((key for key in needed if key not in content), None)
        if lacking is not None:
            return f"{place or 'it'} has no {lacking}"
        kinds = shape | needed
        parts = ((f"{place}.{key}", value, kinds.get(key, kinds.get(ANY, object)))
                 for key, value in content.items())  # fmt: skip
    elif isinstance(shape, list):
        if not isinstance(content, list):
            return f"{place} is no list"
        parts = ((f"{place}[{k}]", value, shape[0]) for k, value in enumerate(content))
    else:
        # True is a whole number for Python, and for nobody else.
        fits = isinstance(content, shape) and (shape is not int or not isinstance(content, bool))
        return "" if fits else f"{place} is {content!r}"
    return next(
        filter(None, (_wrong(value, kind, at.lstrip(".")) for at, value, kind in parts)), ""
    )
