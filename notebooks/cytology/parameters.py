"""Every parameter of the notebooks, declared once: its type, its range, what it means."""

from dataclasses import dataclass

from cytology.architectures import ARCHITECTURE_NAMES
from cytology.settings import InputError, resolve
from cytology.wording import is_one_line

# Which network a training notebook trains is what makes it that notebook: it stands in its
# parameters cell, but a run cannot set it, or all three would train the same one.
FIXED_PARAMETERS = ("architecture",)


# What `data` may be beside a folder: the drawn sample, and published sets (see `sources`).
DATA_WORDS = ("sample", "breakhis", "fnac", "fnac2019")


@dataclass(frozen=True)
class Rule:
    """What a notebook parameter may be: `kind` is a Python type, the rest narrows it."""

    meaning: str
    kind: type
    low: float | None = None
    high: float | None = None
    choices: tuple = ()
    may_be_none: bool = False

    def allowed(self) -> str:
        """The allowed values in words."""
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
        if self.choices:
            text = "one of " + ", ".join(str(choice) for choice in self.choices)
        else:
            text = words[self.kind]
        low, high = (
            f"{limit:,}" if isinstance(limit, int) else f"{limit:g}"
            for limit in (self.low or 0, self.high or 0)
        )
        if self.low is not None and self.high is not None:
            text += f" from {low} to {high}"
        elif self.low is not None:
            text += f" of at least {low}"
        return text + (" or nothing (None)" if self.may_be_none else "")

    def accepts(self, value) -> bool:
        """Whether `value` keeps the rule. A whole number passes for a float, a bool does not."""
        if value is None:
            return self.may_be_none
        if isinstance(value, bool) != (self.kind is bool):
            return False
        if not isinstance(value, (int, float) if self.kind is float else self.kind):
            return False
        if isinstance(value, str) and not is_one_line(value):
            return False
        if self.choices:
            return value in self.choices
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


PARAMETERS = {
    "run_dir": Rule("folder that holds everything of this run", str),
    "data": Rule("sample, breakhis, fnac, fnac2019, a folder; empty after 01: what 01 read", str),
    "seed": Rule("one seed for Python, NumPy, Keras and the order of the data", int, 0, 2**32 - 1),
    "classes": Rule("folder names of the classes, like 'normal=B, cancer=M'", str),
    "patient_pattern": Rule("regular expression; its first group is the patient", str),
    "patients_csv": Rule("CSV file with image,patient[,slide]", str),
    "follow_links": Rule("also read what links in the data folder lead to outside of it", bool),
    "archive": Rule("archive or folder of a published set that you have already", str),
    "address": Rule("where to download a published set; empty: its official place", str),
    "magnification": Rule("of BreaKHis", str, choices=("all", "40X", "100X", "200X", "400X")),
    "sample_images": Rule("images of the drawn sample", int, 40, 5000),
    "sample_patients": Rule("patients of the drawn sample", int, 8, 500),
    "image_size": Rule("side of the square network input in pixels", int, 75, 1024),
    "fit": Rule("pad to a square, or stretch as the original did", str, choices=("pad", "stretch")),
    "orientations": Rule("orientations of each training image", int, choices=(1, 4, 8)),
    "write_files": Rule("also write the pictures as files", bool),
    "protocol": Rule(
        "keep groups together, or augment first and split files as the original did",
        str,
        choices=("grouped", "original"),
    ),
    "folds": Rule("folds of the cross-validation", int, 2, 20),
    "val_share": Rule("share of the groups in val", float, 0.05, 0.4),
    "test_share": Rule("share of the groups in test", float, 0.05, 0.4),
    "weights": Rule("auto, imagenet, random, a weights file or a folder of them", str),
    "batch_size": Rule("images a step", int, 1, 1024),
    "accumulate": Rule("batches whose gradients make one step", int, 1, 1024),
    "steps_per_execution": Rule("steps that the device takes on its own", int, 1, 1000),
    "precision": Rule(
        "what the network computes in", str, choices=("auto", "float32", "float16", "bfloat16")
    ),
    "strategy": Rule("all GPUs of this machine, or one", str, choices=("auto", "one")),
    "train_head": Rule("train the head on frozen features, cross-validated", bool),
    "head_epochs": Rule("the most epochs of the head", int, 1, 10000),
    "fine_tune": Rule("train more than the head", bool),
    "fine_tune_from": Rule("first block to train, or `last`; empty: every layer", str),
    "epochs": Rule("epochs of fine-tuning", int, 1, 10000),
    "learning_rate": Rule(
        "rate of fine-tuning, None: the original's", float, 1e-9, 1.0, may_be_none=True
    ),
    "early_stopping": Rule("stop when the loss of held-back groups no longer falls", bool),
    "patience": Rule("epochs without a lower loss before stopping", int, 1, 1000),
    "deterministic": Rule("the same bits each time, also on a GPU, where that takes time", bool),
    "class_weight": Rule("weight of the classes in the loss", str, choices=("balanced", "none")),
    "wanted_sensitivity": Rule("sensitivity that a threshold is to reach", float, 0.5, 1.0),
    "group_rule": Rule(
        "what the predictions of a group's images become",
        str,
        choices=("mean_logit", "mean_probability", "highest", "vote"),
    ),
    "curve_images": Rule("most images in the learning curve; whole groups are drawn", int, 40),
    "simulated_studies": Rule("studies that check the intervals, a true AUC", int, 2, 10000),
    "images_classes": Rule("folder names of the new images' classes, as `classes`", str),
    "images_patient_pattern": Rule("whose new images are, as `patient_pattern`", str),
    "images_patients_csv": Rule("whose new images are, as `patients_csv`", str),
    "threshold_rule": Rule(
        "which locked threshold decides", str, choices=("half", "youden", "sensitivity")
    ),
    "audit_seeds": Rule("repetitions of the leakage audit", int, 2, 200),
    "audit_images": Rule("most images in the leakage audit; whole groups are drawn", int, 40),
    "predict_with": Rule("whose model predicts new images", str, choices=ARCHITECTURE_NAMES),
    "images": Rule(
        "folder, archive or list of new images, or unseen; empty: images of the test split", str
    ),
    "refer_share": Rule("share of the least sure images that is to be referred", float, 0.0, 0.9),
    "show_images": Rule("how many pictures to show", int, 1, 200),
    "shift_images": Rule("most images to shift; spread over the groups", int, 8),
    "explain_with": Rule(
        "whose answers notebook 11 explains", str, choices=("all", *ARCHITECTURE_NAMES)
    ),
    "explain_layer": Rule("layer whose maps are weighed; empty: the last map", str),
    "explained_images": Rule("most images to explain; spread over the groups", int, 8),
    "perturbed_images": Rule("of the explained, how many are covered and turned", int, 2),
    "map_method": Rule("of the map of features", str, choices=("pca", "tsne")),
    "reference_strength": Rule("strength of a shift that the tables compare at", int, 1, 5),
    # 12
    "export_with": Rule("whose model is exported", str, choices=("all", *ARCHITECTURE_NAMES)),
    "export_formats": Rule("all, or names of formats with commas between", str),
    "check_images": Rule("test images that each exported file must agree on", int, 2, 2000),
    "calibration_images": Rule("training images that set the ranges of int8", int, 8, 2000),
}


def check_parameter(name: str, value) -> None:
    """Raise `InputError` if `value` is not allowed for the parameter `name`."""
    rule = PARAMETERS[name]
    if not rule.accepts(value):
        raise InputError(f"Parameter `{name}` is {value!r}; it must be {rule.allowed()}.")


def check_parameters(**values) -> None:
    """Check several parameters at once, then what they must be together."""
    for name, value in values.items():
        check_parameter(name, value)
    if values.get("val_share", 0) + values.get("test_share", 0) > 0.6:
        raise InputError("`val_share` and `test_share` together must leave 0.4 for training.")
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


def named(data: str) -> str:
    """What `data` is called in `dataset.json`: its word, or the absolute path of a folder."""
    return data if data in DATA_WORDS else str(resolve(data))
