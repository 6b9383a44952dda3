"""What the JSON files of a run hold, and of which type: people edit them, and send them around."""

from fnmatch import fnmatch

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
