"""Every parameter of the notebooks, declared once: type, range, meaning.

The defaults are in the notebooks' parameters cells, where a reader sees them. The notebooks' check,
the command line, the profiles, `run_all.py --list` and the report follow from this file.
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

# Each training notebook trains its own network: `architecture` is in its parameters cell, but a run
# cannot set it, or all three would train the same one.
FIXED_PARAMETERS = ("architecture",)
# Values of `data` other than a folder: the drawn sample, and published sets.
DATA_WORDS = ("sample", "breakhis", "fnac", "fnac2019")
WEIGHT_WORDS = ("auto", "imagenet", "random")


@dataclass(frozen=True)
class Place:
    """A parameter that names a file or folder.

    `kind` is what must exist there, empty if nothing must; `words` are values that are not paths;
    `read_by` are the notebooks that read it: numbers, or `training`.
    """

    kind: str = ""
    words: tuple[str, ...] = ()
    read_by: str = ""


@dataclass(frozen=True)
class OneOf:
    """A validator for a choice among names known only at run time, or among numbers.

    `Literal` would accept True as 1 and 8.0 as 8.
    """

    values: tuple

    def __call__(self, value: Any) -> Any:
        if value not in self.values:
            raise ValueError(f"must be one of {self.values}")
        return value


def _one_line(value: str) -> str:
    """Text that can be used in a file name and in a message."""
    if not is_one_line(value):
        raise ValueError("must be one line")
    return value


# Marks a parameter that only asks something of a finished run: changing it makes no other run.
QUESTION = "question"
Line = Annotated[str, AfterValidator(_one_line)]
OneNetwork = Annotated[str, AfterValidator(OneOf(ARCHITECTURE_NAMES))]
OneOrAll = Annotated[str, AfterValidator(OneOf(("all", *ARCHITECTURE_NAMES)))]
Orientations = Annotated[int, AfterValidator(OneOf((1, 4, 8)))]


def says(meaning: str, low: float | None = None, high: float | None = None) -> Any:
    """A field with this meaning, from `low` to `high` if it is a number."""
    return Field(description=meaning, ge=low, le=high)


class Parameters(BaseModel):
    """One field per parameter: its type, then its meaning and range."""

    model_config = ConfigDict(strict=True, validate_assignment=True)

    run_dir: Annotated[Line, Place()] = says("folder for all results of this run")
    data: Annotated[Line, Place("folder", DATA_WORDS, "01")] = says(
        "sample, breakhis, fnac, fnac2019 or a folder; leave empty after notebook 01"
    )
    seed: int = says("seed for Python, NumPy, Keras and the order of the data", 0, 2**32 - 1)
    # 01
    classes: Line = says("which folder is which class, e.g. 'normal=B, cancer=M'")
    patient_pattern: Line = says(
        "regular expression for image paths; its first group is the patient"
    )
    patients_csv: Annotated[Line, Place("file", (), "01")] = says(
        "table (CSV or .xlsx) with image,patient[,slide]"
    )
    follow_links: bool = says("also read files outside the data folder that links in it point to")
    archive: Annotated[Line, Place("file or folder", (), "01")] = says(
        "archive or folder of a published set that you already have"
    )
    address: Line = says("where to download a published set; empty: the official address")
    magnification: Literal["all", "40X", "100X", "200X", "400X"] = says(
        "which magnification of BreaKHis"
    )
    sample_images: int = says("number of images in the drawn sample", 40, 5000)
    sample_patients: int = says("number of patients in the drawn sample", 8, 500)
    # 02
    image_size: int = says("side of the network's square input, in pixels", 75, 1024)
    fit: Literal["pad", "stretch"] = says("pad to a square, or stretch as the original did")
    orientations: Orientations = says("number of orientations of each training image")
    write_files: bool = says("also write the pictures as files")
    # 03
    given_split: Annotated[Line, Place("file", ("folders",), "03")] = says(
        "split to use: folders (train, val, test), or a table with image,split; empty: check only"
    )
    protocol: Literal["grouped", "original", "given"] = says(
        "grouped: keep groups together; original: augment, then split files, as the original did; "
        "given: use `given_split` unchanged"
    )
    folds: int = says("number of folds of the cross-validation", 2, 20)
    val_share: float = says("share of the groups in val", 0.05, 0.4)
    test_share: float = says("share of the groups in test", 0.05, 0.4)
    # 04 to 06
    weights: Annotated[Line, Place("file or folder", WEIGHT_WORDS, TRAINING)] = says(
        "auto, imagenet, random, a weights file, or a folder of weights files"
    )
    batch_size: int = says("images per step", 1, 1024)
    accumulate: int = says("batches whose gradients are combined into one step", 1, 1024)
    steps_per_execution: int = says("steps per call of the device", 1, 1000)
    precision: Literal["auto", "float32", "float16", "bfloat16"] = says(
        "number format of the network in TensorFlow"
    )
    engine: Literal["auto", "tensorflow", "openvino", "openvino_bfloat16"] = says(
        "software that runs the frozen network; auto: the fastest that is accurate enough"
    )
    strategy: Literal["auto", "one"] = says("auto: all GPUs of this machine; one: a single one")
    train_head: bool = says("train a cross-validated head on frozen features")
    head_epochs: int = says("maximum number of epochs of the head", 1, 10000)
    fine_tune: bool = says("also train layers of the network itself")
    fine_tune_from: Line = says("first block to fine-tune, or `last`; empty: every layer")
    epochs: int = says("epochs of fine-tuning", 1, 10000)
    learning_rate: float | None = says(
        "learning rate of fine-tuning; None: the original's", 1e-9, 1.0
    )
    patience: int = says(
        "epochs without a lower loss before training stops; 0: never stop early", 0, 1000
    )
    deterministic: bool = says("identical results each time, also on a GPU (slower there)")
    class_weight: Literal["balanced", "none"] = says("weight of the classes in the loss")
    # 07
    outside: Annotated[Line, Place("folder", (), "07"), QUESTION] = says(
        "folder with models from outside: NAME.predictions.csv, NAME.features.npz, .h5 or .csv"
    )
    group_rule: Literal["mean_logit", "mean_probability", "highest", "vote"] = says(
        "how the predictions of a group's images are combined"
    )
    # 08
    wanted_sensitivity: float = says("sensitivity that the threshold should reach", 0.5, 1.0)
    prevalence: Annotated[float, QUESTION] = says(
        "share of malignant images where the network will be used; 0: as in this data", 0.0, 0.99
    )
    promised_miss: Annotated[float, QUESTION] = says(
        "largest acceptable share of all patients who are malignant and not referred", 0.001, 0.5
    )
    # 09
    predict_with: Annotated[OneNetwork, QUESTION] = says("network that predicts new images")
    images: Annotated[Line, Place("file or folder", ("unseen",), "09"), QUESTION] = says(
        "folder, archive or list of new images, or `unseen`; empty: images of the test split"
    )
    images_classes: Annotated[Line, QUESTION] = says("like `classes`, for the new images")
    images_patient_pattern: Annotated[Line, QUESTION] = says(
        "like `patient_pattern`, for the new images"
    )
    images_patients_csv: Annotated[Line, Place("file", (), "09"), QUESTION] = says(
        "like `patients_csv`, for the new images"
    )
    threshold_rule: Annotated[Literal["half", "youden", "sensitivity"], QUESTION] = says(
        "which locked threshold to use"
    )
    refer_share: Annotated[float, QUESTION] = says(
        "share of images to refer to a person, the least certain first", 0.0, 0.9
    )
    show_images: Annotated[int, QUESTION] = says("number of images to show", 1, 200)
    # 10
    audit_seeds: int = says("number of repetitions of the leakage audit", 2, 200)
    audit_images: int = says("maximum number of images in the leakage audit (whole groups)", 40)
    # 11
    shift_images: int = says("maximum number of images to shift, spread over the groups", 8)
    reference_strength: int = says("strength of each shift at which the tables compare", 1, 5)
    # 12
    explain_with: Annotated[OneOrAll, QUESTION] = says("network whose answers are explained")
    explain_layer: Annotated[Line, QUESTION] = says(
        "layer from which heatmaps are made; empty: the last one"
    )
    explained_images: int = says("maximum number of images to explain, spread over the groups", 8)
    perturbed_images: int = says("how many of the explained images are also covered and turned", 2)
    map_method: Annotated[Literal["pca", "tsne"], QUESTION] = says("method of the map of features")
    # 13
    export_with: Annotated[OneOrAll, QUESTION] = says("network to export")
    export_formats: Annotated[Line, QUESTION] = says("all, or names of formats separated by commas")
    check_images: Annotated[int, QUESTION] = says(
        "images on which each exported file is checked", 2, 2000
    )
    calibration_images: Annotated[int, QUESTION] = says(
        "images from which int8 takes its ranges", 8, 2000
    )
    # 14
    curve_images: int = says("maximum number of images in the learning curve (whole groups)", 40)
    simulated_studies: int = says(
        "simulated studies per true AUC, to check the intervals", 2, 10000
    )


FIELDS: dict[str, FieldInfo] = Parameters.model_fields
QUESTIONS = tuple(name for name, field in FIELDS.items() if QUESTION in field.metadata)
PLACES = {
    name: note
    for name, field in FIELDS.items()
    for note in field.metadata
    if isinstance(note, Place)
}


def meaning(name: str) -> str:
    """What a parameter means; empty if this series has no such parameter."""
    return (FIELDS[name].description or "") if name in FIELDS else ""


def choices(name: str) -> tuple:
    """The allowed values of a parameter; empty if it has a range or is free text."""
    field = FIELDS[name]
    if get_origin(field.annotation) is Literal:
        return get_args(field.annotation)
    validators = (note.func for note in field.metadata if isinstance(note, AfterValidator))
    return next((each.values for each in validators if isinstance(each, OneOf)), ())


def _types(name: str) -> tuple:
    """The Python types of a parameter, including NoneType if it may be None."""
    kind = FIELDS[name].annotation
    if get_origin(kind) is Literal:
        return (str,)
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def allowed(name: str) -> str:
    """The allowed values of a parameter as text."""
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
    """Check several parameters, first each alone, then in combination.

    Names that are not parameters of this series are ignored.
    """
    for name, value in values.items():
        if name in FIELDS:
            check_parameter(name, value)
    if values.get("val_share", 0) + values.get("test_share", 0) > 0.6:
        raise InputError(
            "`val_share` and `test_share` must add up to at most 0.6; the rest is for training."
        )
    given, protocol = values.get("given_split", ""), values.get("protocol")
    if protocol == "given" and not given:
        raise InputError(
            "`protocol` is 'given', but `given_split` is empty: name a table with image,split, or "
            "'folders' if the images lie in train and test."
        )
    if protocol == "original" and given:
        raise InputError(
            "`protocol` is 'original', which splits at random, but `given_split` names a split: "
            "remove one of them."
        )
    if values.get("train_head") is False and values.get("fine_tune") is False:
        raise InputError("`train_head` and `fine_tune` are both false: nothing would be trained.")
    if values.get("fine_tune_from") and values.get("fine_tune") is False:
        raise InputError("`fine_tune_from` names a block, but `fine_tune` is false: make it true.")
    if values.get("data") and values["data"] not in DATA_WORDS and "run_dir" in values:
        run, data = resolve(values["run_dir"]), resolve(values["data"])
        if run == data or data in run.parents:
            raise InputError(
                f"Parameter `run_dir` is {run}, inside the data folder {data}: its files would be "
                "read as data. Choose another folder."
            )


def check_places(values: dict[str, Any]) -> None:
    """`InputError` if a path that a notebook will read is missing: now, not in ten minutes."""
    tests = {"folder": Path.is_dir, "file": Path.is_file, "file or folder": Path.exists}
    for name, value in _paths(values):
        kind = PLACES[name].kind
        if kind and not tests[kind](Path(value)):
            raise InputError(f"Parameter `{name}`: there is no {kind} {value}.")


def absolute_paths(values: dict[str, Any], base: Path) -> dict[str, Any]:
    """`values` with paths made absolute, relative to `base`; words like `sample` are kept."""
    return values | {name: str(resolve(value, base)) for name, value in _paths(values)}


def _paths(values: dict[str, Any]) -> Iterable[tuple[str, str]]:
    for name, place in PLACES.items():
        value = values.get(name)
        if isinstance(value, str) and value and value not in place.words:
            yield name, value


def parse_value(name: str, text: str) -> Any:
    """`text` from the command line as a value of the parameter, not yet checked.

    A text parameter stays text: a data folder may be called `2024`.
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


def data_name(data: str) -> str:
    """The name of `data` in `dataset.json`: a word like `sample`, or an absolute path."""
    return data if data in DATA_WORDS else str(resolve(data))
