"""Every parameter of the notebooks, declared once: its type, its range, what it means.

Its default stands in the notebooks' parameters cells, where a reader sees it. The notebooks' check,
the command line, the profiles, `run_all.py --list` and the report follow from what stands here.
"""

import types
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from cytology.architectures import ARCHITECTURE_NAMES
from cytology.catalogue import TRAINING
from cytology.settings import InputError, resolve
from cytology.wording import is_one_line

# Which network a training notebook trains is what makes it that notebook: it stands in its
# parameters cell, but a run cannot set it, or all three would train the same one.
FIXED_PARAMETERS = ("architecture",)
# What `data` may be besides a folder: the drawn sample, and published sets.
DATA_WORDS = ("sample", "breakhis", "fnac", "fnac2019")
WEIGHT_WORDS = ("auto", "imagenet", "random")


@dataclass(frozen=True)
class Place:
    """A parameter that names a file or folder.

    `kind` is what must be there, empty if nothing must; `words` may stand in its place;
    `read_by` are the notebooks that read it, by number or `training`.
    """

    kind: str = ""
    words: tuple[str, ...] = ()
    read_by: str = ""


@dataclass(frozen=True)
class OneOf:
    """A validator for a choice: of names that only the program knows, or of numbers.

    `Literal` would also take True for 1, and 8.0 for 8.
    """

    values: tuple

    def __call__(self, value: Any) -> Any:
        if value not in self.values:
            raise ValueError(f"must be one of {self.values}")
        return value


def _one_line(value: str) -> str:
    """Text that can name a file and stand in a message."""
    if not is_one_line(value):
        raise ValueError("must be one line")
    return value


# Asked of a finished run: another value does not make it another run.
QUESTION = "question"
Line = Annotated[str, AfterValidator(_one_line)]
OneNetwork = Annotated[str, AfterValidator(OneOf(ARCHITECTURE_NAMES))]
OneOrAll = Annotated[str, AfterValidator(OneOf(("all", *ARCHITECTURE_NAMES)))]
Orientations = Annotated[int, AfterValidator(OneOf((1, 4, 8)))]


def says(meaning: str, low: float | None = None, high: float | None = None) -> Any:
    """A parameter that means this, from `low` to `high` if it is a number."""
    return Field(description=meaning, ge=low, le=high)


class Parameters(BaseModel):
    """One field a parameter: its type, then its meaning and range."""

    model_config = ConfigDict(strict=True, validate_assignment=True)

    run_dir: Annotated[Line, Place()] = says("folder that holds everything of this run")
    data: Annotated[Line, Place("folder", DATA_WORDS, "01")] = says(
        "sample, breakhis, fnac, fnac2019, a folder; empty after 01: what 01 read"
    )
    seed: int = says("one seed for Python, NumPy, Keras and the order of the data", 0, 2**32 - 1)
    # 01
    classes: Line = says("folder names of the classes, like 'normal=B, cancer=M'")
    patient_pattern: Line = says("regular expression; its first group is the patient")
    patients_csv: Annotated[Line, Place("file", (), "01")] = says(
        "table (CSV or .xlsx) with image,patient[,slide]"
    )
    follow_links: bool = says("also read what links in the data folder lead to outside of it")
    archive: Annotated[Line, Place("file or folder", (), "01")] = says(
        "archive or folder of a published set that you have already"
    )
    address: Line = says("where to download a published set; empty: its official place")
    magnification: Literal["all", "40X", "100X", "200X", "400X"] = says("of BreaKHis")
    sample_images: int = says("images of the drawn sample", 40, 5000)
    sample_patients: int = says("patients of the drawn sample", 8, 500)
    # 02
    image_size: int = says("side of the square network input in pixels", 75, 1024)
    fit: Literal["pad", "stretch"] = says("pad to a square, or stretch as the original did")
    orientations: Orientations = says("orientations of each training image")
    write_files: bool = says("also write the pictures as files")
    # 03
    given_split: Annotated[Line, Place("file", ("folders",), "03")] = says(
        "a split to use: folders (train, val, test), or a table with image,split; empty: judge only"
    )
    protocol: Literal["grouped", "original", "given"] = says(
        "keep groups together; augment first and split files as the original did; take a given "
        "split as it is"
    )
    folds: int = says("folds of the cross-validation", 2, 20)
    val_share: float = says("share of the groups in val", 0.05, 0.4)
    test_share: float = says("share of the groups in test", 0.05, 0.4)
    # 04 to 06
    weights: Annotated[Line, Place("file or folder", WEIGHT_WORDS, TRAINING)] = says(
        "auto, imagenet, random, a weights file or a folder of them"
    )
    batch_size: int = says("images a step", 1, 1024)
    accumulate: int = says("batches whose gradients make one step", 1, 1024)
    steps_per_execution: int = says("steps that the device takes on its own", 1, 1000)
    precision: Literal["auto", "float32", "float16", "bfloat16"] = says(
        "what the network computes in where TensorFlow does it"
    )
    engine: Literal["auto", "tensorflow", "openvino", "openvino_bfloat16"] = says(
        "what passes pictures through the frozen network; auto: the fastest that is exact enough"
    )
    strategy: Literal["auto", "one"] = says("all GPUs of this machine, or one")
    train_head: bool = says("train the head on frozen features, cross-validated")
    head_epochs: int = says("the most epochs of the head", 1, 10000)
    fine_tune: bool = says("train more than the head")
    fine_tune_from: Line = says("first block to train, or `last`; empty: every layer")
    epochs: int = says("epochs of fine-tuning", 1, 10000)
    learning_rate: float | None = says("rate of fine-tuning, None: the original's", 1e-9, 1.0)
    patience: int = says(
        "epochs without a lower loss before stopping; 0: never stop early", 0, 1000
    )
    deterministic: bool = says("the same bits each time, also on a GPU, where that takes time")
    class_weight: Literal["balanced", "none"] = says("weight of the classes in the loss")
    # 07
    outside: Annotated[Line, Place("folder", (), "07"), QUESTION] = says(
        "folder with models from outside: NAME.predictions.csv, NAME.features.npz, .h5 or .csv"
    )
    group_rule: Literal["mean_logit", "mean_probability", "highest", "vote"] = says(
        "what the predictions of a group's images become"
    )
    # 08
    wanted_sensitivity: float = says("sensitivity that a threshold is to reach", 0.5, 1.0)
    prevalence: Annotated[float, QUESTION] = says(
        "share of malignant images at the place that is asked about; 0: the share here", 0.0, 0.99
    )
    promised_miss: Annotated[float, QUESTION] = says(
        "most patients, of all, who may be malignant and not referred", 0.001, 0.5
    )
    # 09
    predict_with: Annotated[OneNetwork, QUESTION] = says("whose model predicts new images")
    images: Annotated[Line, Place("file or folder", ("unseen",), "09"), QUESTION] = says(
        "folder, archive or list of new images, or unseen; empty: images of the test split"
    )
    images_classes: Annotated[Line, QUESTION] = says("folder names of their classes, as `classes`")
    images_patient_pattern: Annotated[Line, QUESTION] = says(
        "whose new images are, as `patient_pattern`"
    )
    images_patients_csv: Annotated[Line, Place("file", (), "09"), QUESTION] = says(
        "whose new images are, as `patients_csv`"
    )
    threshold_rule: Annotated[Literal["half", "youden", "sensitivity"], QUESTION] = says(
        "which locked threshold decides"
    )
    refer_share: Annotated[float, QUESTION] = says("share of the least sure to refer", 0.0, 0.9)
    show_images: Annotated[int, QUESTION] = says("how many pictures to show", 1, 200)
    # 10
    audit_seeds: int = says("repetitions of the leakage audit", 2, 200)
    audit_images: int = says("most images in the leakage audit; whole groups are drawn", 40)
    # 11
    shift_images: int = says("most images to shift; spread over the groups", 8)
    reference_strength: int = says("strength of a shift that the tables compare at", 1, 5)
    # 12
    explain_with: Annotated[OneOrAll, QUESTION] = says("whose answers notebook 12 explains")
    explain_layer: Annotated[Line, QUESTION] = says("layer whose maps are weighed; empty: the last")
    explained_images: int = says("most images to explain; spread over the groups", 8)
    perturbed_images: int = says("of the explained, how many are covered and turned", 2)
    map_method: Annotated[Literal["pca", "tsne"], QUESTION] = says("of the map of features")
    # 13
    export_with: Annotated[OneOrAll, QUESTION] = says("whose model is exported")
    export_formats: Annotated[Line, QUESTION] = says("all, or names of formats with commas between")
    check_images: Annotated[int, QUESTION] = says("images that each file must agree on", 2, 2000)
    calibration_images: Annotated[int, QUESTION] = says("images for the ranges of int8", 8, 2000)
    # 14
    curve_images: int = says("most images in the learning curve; whole groups are drawn", 40)
    simulated_studies: int = says("studies that check the intervals, a true AUC", 2, 10000)


FIELDS: dict[str, FieldInfo] = Parameters.model_fields
QUESTIONS = tuple(name for name, field in FIELDS.items() if QUESTION in field.metadata)
PLACES = {
    name: note
    for name, field in FIELDS.items()
    for note in field.metadata
    if isinstance(note, Place)
}


def meaning(name: str) -> str:
    """What a parameter means; empty for one that is not of this series."""
    return (FIELDS[name].description or "") if name in FIELDS else ""


def choices(name: str) -> tuple:
    """The only values of a parameter; empty if it has a range, or is text."""
    field = FIELDS[name]
    if get_origin(field.annotation) is Literal:
        return get_args(field.annotation)
    validators = (note.func for note in field.metadata if isinstance(note, AfterValidator))
    return next((each.values for each in validators if isinstance(each, OneOf)), ())


def _types(name: str) -> tuple:
    """The Python types of a parameter; NoneType among them if it may be None."""
    kind = FIELDS[name].annotation
    if get_origin(kind) is Literal:
        return (str,)
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def allowed(name: str) -> str:
    """The allowed values of a parameter in words."""
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    if choices(name):
        return "one of " + ", ".join(map(str, choices(name)))
    found = _types(name)
    text = words[found[0]]
    low, high = _limit(name, "ge"), _limit(name, "le")
    if low:
        text += f" from {low} to {high}" if high else f" of at least {low}"
    return text + (" or nothing (None)" if type(None) in found else "")


def _limit(name: str, side: str) -> str:
    found = [getattr(note, side) for note in FIELDS[name].metadata if hasattr(note, side)]
    return "".join(f"{limit:,}" if isinstance(limit, int) else f"{limit:g}" for limit in found)


def check_parameter(name: str, value: Any) -> None:
    """Raise `InputError` if `value` is not allowed for the parameter `name`."""
    try:
        setattr(Parameters.model_construct(), name, value)
    except ValidationError:
        raise InputError(f"Parameter `{name}` is {value!r}; it must be {allowed(name)}.") from None


def check_parameters(values: dict[str, Any]) -> None:
    """Check several parameters at once, then what they must be together.

    Names that are no parameter of this series are left alone.
    """
    for name, value in values.items():
        if name in FIELDS:
            check_parameter(name, value)
    if values.get("val_share", 0) + values.get("test_share", 0) > 0.6:
        raise InputError("`val_share` and `test_share` together must leave 0.4 for training.")
    given, protocol = values.get("given_split", ""), values.get("protocol")
    if protocol == "given" and not given:
        raise InputError(
            "`protocol` is 'given', but `given_split` is empty: name a table with image,split, or "
            "'folders' if the images lie in train and test."
        )
    if protocol == "original" and given:
        raise InputError(
            "`protocol` is 'original', which splits at random, but `given_split` names a split: "
            "leave one of them out."
        )
    if values.get("train_head") is False and values.get("fine_tune") is False:
        raise InputError("`train_head` and `fine_tune` are both false: nothing would be trained.")
    if values.get("fine_tune_from") and values.get("fine_tune") is False:
        raise InputError("`fine_tune_from` names a block, but `fine_tune` is false: make it true.")
    if values.get("data") and values["data"] not in DATA_WORDS and "run_dir" in values:
        run, data = resolve(values["run_dir"]), resolve(values["data"])
        if run == data or data in run.parents:
            raise InputError(
                f"Parameter `run_dir` is {run}, inside the data folder {data}: what is written "
                "there would be taken for images. Choose another folder."
            )


def check_places(values: dict[str, Any]) -> None:
    """`InputError` if a path that a notebook will read is not there: now, not in ten minutes."""
    tests = {"folder": Path.is_dir, "file": Path.is_file, "file or folder": Path.exists}
    for name, value in _paths(values):
        kind = PLACES[name].kind
        if kind and not tests[kind](Path(value)):
            raise InputError(f"Parameter `{name}`: there is no {kind} {value}.")


def absolute_paths(values: dict[str, Any], base: Path) -> dict[str, Any]:
    """`values` with relative paths made absolute from `base`; words like `sample` stay."""
    return values | {name: str(resolve(value, base)) for name, value in _paths(values)}


def _paths(values: dict[str, Any]) -> Iterable[tuple[str, str]]:
    for name, place in PLACES.items():
        value = values.get(name)
        if isinstance(value, str) and value and value not in place.words:
            yield name, value


def typed(name: str, text: str) -> Any:
    """`text` from the command line as a value of the parameter; checked later.

    A parameter that is text keeps it: a data folder may be called `2024`.
    """
    if name in FIELDS and str in _types(name):
        return text
    words = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def named(data: str) -> str:
    """What `data` is called in `dataset.json`: its word, or the absolute path of a folder."""
    return data if data in DATA_WORDS else str(resolve(data))
