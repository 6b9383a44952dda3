"""Every file of a run: who writes it, who reads it, its content and types.

`outputs/README.md`, the messages about missing or damaged files, the checks of tables, and which
notebooks run again after a change follow from it.
"""

from dataclasses import dataclass
from fnmatch import fnmatch

from cytology.architectures import ARCHITECTURES, TRAINED_BY, TRAINING_NOTEBOOKS

VERIFICATION = "verification.json"  # result of comparing the run with its repetition
RUN_ALL = "run_all.py"
NOTEBOOKS = ("01_data_exploration", "02_augmentation", "03_splitting", *TRAINED_BY)
NOTEBOOKS += ("07_comparison", "08_decisions", "09_inference", "10_leakage_audit")
NOTEBOOKS += ("11_robustness", "12_explanation", "13_export", "14_next_study")
TRAINING = "training"  # means the notebooks that train a network


@dataclass(frozen=True)
class RunFile:
    """A file of a run folder, or several if `name` has a star.

    `name` begins with `NETWORK/` if each network has one. `writer` and `readers` are numbers of
    notebooks, `training` for those that train. `numbers` and `texts` are columns that readers need.
    If `is_result`, the run marks the table with weights and protocol.
    """

    name: str
    writer: str
    says: str
    readers: str = ""
    numbers: str = ""
    texts: str = ""
    is_result: bool = False


def _result(name: str, writer: str, says: str, readers: str = "") -> RunFile:
    return RunFile(f"tables/{name}.csv", writer, says, readers, is_result=True)


RUN_FILES = (
    RunFile("report.html", RUN_ALL, "the run on one page"),
    RunFile("checklist.md", RUN_ALL,
            "TRIPOD+AI item by item: what the run answers, and what its author must write"),
    RunFile("dataset.json", "01", "where the images are, how many, and which unit is kept together",
            "02 03 training 07 08 09 10 11 12 13 14"),
    RunFile("manifest.csv", "01", "one row per image: label, patient, slide, group, size, hash",
            "02 03 training 07 09 10 11 12 13 14", texts="image_id label group"),
    RunFile("rejected.csv", "01", "images that were left out, and why"),
    RunFile("unseen.csv", "01",
            "images of neither class, not used for training or evaluation", "09 11"),
    RunFile("pseudonyms.csv", "01",
            "the numbers that stand for patients, slides, groups and images in figures and report"),
    RunFile("tables/quality.csv", "01",
            "copies, conflicting labels, poor, badly cut or converted images"),
    RunFile("tables/appearance.csv", "01",
            "mean brightness, colour and sharpness of each image", "03 07 11"),
    RunFile("augmentation.json", "02", "size, fit and orientations of the pictures",
            "03 training 10 13"),
    RunFile("split.csv", "03", "the part and the fold of each image",
            "training 07 08 09 11 12 13 14", numbers="fold", texts="image_id group label split"),
    RunFile("split.json", "03",
            "images in each part, what crosses between the parts, and the split's fingerprint",
            "training 07 08 09 10 11 12 13 14"),
    RunFile("given_split.html", "03",
            "check of a split that came with the images: a page for its authors; it names files"),
    RunFile("tables/given_split.csv", "03",
            "one row per file, copy, patient or slide that crosses it: its images in each part, "
            "and two examples"),
    RunFile("tables/given_split_repaired.csv", "03",
            "its parts after the smallest move of whole groups that removes the leak; a table for "
            "`given_split`"),
    RunFile("NETWORK/predictions.csv", "training",
            "every prediction; the source of most numbers of the run", "07 08 09 11 12 13 14",
            numbers="logit fold seed orientation", texts="image_id group label split model"),
    RunFile("NETWORK/metrics.json", "training", "recipe, weights and result of the training",
            "07 08 09 10 11 12 13 14"),
    RunFile("NETWORK/timing.json", "training", "device, times, number of parameters", "07 13"),
    RunFile("NETWORK/history.csv", "training", "loss and metrics, epoch by epoch"),
    RunFile("NETWORK/model.keras", "training", "the trained network", "09 11 12 13"),
    RunFile("NETWORK/model.h5", "training", "DenseNet121 in the original project's format", "13"),
    RunFile("NETWORK/heads.npz", "training", "the heads of the folds", "11 12"),
    RunFile("NETWORK/strengths.csv", "training", "results for each strength of the heads' penalty",
            "14"),
    RunFile("NETWORK/orientations.csv", "training", "results when trained on fewer orientations",
            "14"),
    RunFile("NETWORK/reference.npz", "09",
            "features of the training images, to compare new images with"),
    RunFile("outside/*/predictions.csv", "07", "predictions of each model from outside, or of "
            "heads on its features", "08", numbers="logit fold seed orientation",
            texts="image_id group label split model"),
    RunFile("outside/*/metrics.json", "07", "what is known about it", "08 10 13 14"),
    RunFile("outside/*/strengths.csv", "07", "results for each strength of its heads' penalty",
            "14"),
    _result("comparison", "07", "one row per architecture, by image: every metric `x` with its "
            "95 % interval, `x_low` to `x_high`", "13"),
    _result("comparison_all", "07", "also the ensemble, averages over orientations and folds, and "
            "the baseline; by image and by patient; out of fold and on test", "13"),
    _result("pairwise", "07", "differences of AUC with intervals and P values, corrected within a "
            "`family` and level", "13"),
    _result("folds", "07", "the same differences fold by fold"),
    RunFile("tables/cost.csv", "07", "times and sizes"),
    RunFile("tables/doubtful_labels.csv", "07",
            "images whose label the held-out predictions contradict, with a column for your "
            "`decision`"),
    _result("auc_without_doubtful", "07",
            "AUC with and without them: an upper bound, since the networks chose them"),
    RunFile("tables/doubtful_labels.md", "07", "the doubtful labels in words"),
    RunFile("tables/summary.md", "07", "the result in sentences"),
    _result("thresholds", "08", "thresholds, how they were chosen, and their results", "09 13"),
    _result("calibration", "08", "calibrations, how they were fitted, and their results",
            "09 13"),
    _result("prevalence", "08", "results of each network's threshold at other shares of malignant "
            "images; `asked` marks that of the parameter `prevalence`"),
    _result("decision_curve", "08", "net benefit"),
    _result("referral", "08", "the score from which patients are referred, the promise, and the "
            "result"),
    _result("abstention", "08", "what is gained by leaving uncertain images unanswered"),
    RunFile("tables/decisions.md", "08", "the decisions in words"),
    RunFile("inference/predictions.csv", "09", "answers on new images with the locked threshold "
            "and calibration; which are referred, and why; the nearest training image"),
    RunFile("inference/metrics.csv", "09",
            "every metric with its interval, if the truth is known"),
    RunFile("inference/share.csv", "09", "the share of malignant images among them, estimated "
            "without labels"),
    RunFile("inference/recalibration.csv", "09", "what recalibration would gain, if the truth is "
            "known"),
    RunFile("inference/uploads/", "09", "uploaded images, one folder per upload"),
    _result("leakage_audit", "10",
            "AUC and accuracy per network, kind of split, kind of labels and repetition"),
    _result("leakage_summary", "10", "their means with intervals"),
    RunFile("tables/leakage.md", "10", "the audit in words"),
    _result("robustness", "11",
            "metrics under each shift and strength, and how far they fall"),
    _result("robustness_pictures", "11", "the source of `robustness`: one row per shifted picture"),
    _result("robustness_domains", "11", "results on each stain or site, when left out of training"),
    RunFile("tables/robustness.md", "11", "robustness in words"),
    _result("subgroups", "11", "one row per network and subgroup: AUC, sensitivity, specificity, "
            "and which subgroups are too small to judge"),
    _result("subgroup_tests", "11", "whether the subgroups of each column differ"),
    RunFile("tables/subgroups.md", "11", "the subgroups in words"),
    _result("unseen_scores", "11", "how each network scores each image of neither class, and "
            "of both classes"),
    _result("unseen_categories", "11", "one row per network and category: quartiles of the "
            "calibrated probability, and the share called malignant"),
    _result("explanation_checks", "12",
            "each check of each network's heatmaps, compared with chance; `passed` or not"),
    _result("explanation_pictures", "12", "the source of `explanation_checks`: one row per image "
            "and check"),
    RunFile("tables/explanation.md", "12", "the heatmaps in words"),
    RunFile("tables/neighbours.csv", "12",
            "the most confident mistakes, and the nearest images of other patients"),
    RunFile("exports/*", "13", "each network as `model.keras`, `model_float32.tflite`, "
            "`model_int8.tflite`, `model.onnx` and `saved_model/1` (DenseNet121 also as "
            "`model.h5`), and `export.json`: classes, thresholds, slope and intercept, how to "
            "prepare an image, hashes"),
    _result("exports", "13", "one row per exported file: its difference from the network, MB, "
            "`latency` in ms"),
    RunFile("model_card.md", RUN_ALL,
            "what the networks are for and not for, how good they are, where they fail; also in "
            "the report"),
    _result("learning_curve", "14", "AUC by number of training patients"),
    _result("orientations", "14", "AUC by number of training orientations"),
    _result("strengths", "14", "AUC and log loss with each strength of the heads' penalty"),
    _result("seeds", "14", "how much a result varies with the seed or the held-out fold"),
    _result("planning_widths", "14", "the width of each AUC's interval, and what would narrow it"),
    _result("planning_differences", "14", "which difference in AUC this study could find, and how "
            "many patients a decision needs"),
    _result("validation_size", "14", "how many patients an external validation needs, by each "
            "criterion of Riley et al. 2021"),
    RunFile("tables/planning.md", "14", "the next study in words"),
    RunFile("tables/coverage.csv", "14", "how often the intervals contain a known truth"),
    RunFile("augmented/", "02", "the augmented pictures as files, with `write_files`"),
    RunFile("split_data/", "03", "the split as files, with `write_files`"),
    RunFile("NETWORK/checkpoint/", "training",
            "the state after the last two epochs of fine-tuning; deleted when the notebook ends"),
    RunFile("grid/*/split.json", "training", "the same training with another seed or held-out "
            "fold, each in its own run folder: `grid/seed1`, `grid/seed0-fold2`", "07 14"),
    RunFile("grid/*/*/predictions.csv", "training", "its predictions", "07 14"),
    RunFile("grid/*/*/metrics.json", "training", "its recipe, weights and result", "07 14"),
    RunFile("figures/", "all", "every figure"),
    RunFile("notebooks/", RUN_ALL, "every executed notebook"),
    RunFile("run.json", RUN_ALL, "parameters, versions, seconds and memory, exit code, caveats, "
            "the comparison; for each notebook the hashes of its code, inputs and outputs"),
    RunFile(VERIFICATION, f"{RUN_ALL} --verify", "when the run was repeated and compared"),
    RunFile("verification.csv", f"{RUN_ALL} --verify", "what differed"),
)  # fmt: skip


def _names(file: RunFile) -> dict[str, str]:
    """The file names that `file` means, each with its network or an empty text."""
    if not file.name.startswith("NETWORK/"):
        return {file.name: ""}
    rest = file.name.removeprefix("NETWORK/")
    return {
        f"{name}/{rest}": name
        for name in TRAINING_NOTEBOOKS
        if rest != "model.h5" or ARCHITECTURES[name].kept_as_h5
    }


def is_meant(notebook: str, word: str) -> bool:
    """Whether `word`, a number or `training`, means this notebook."""
    return word == notebook[:2] or (word == TRAINING and notebook in TRAINED_BY)


def _writer(file: RunFile, network: str) -> str | None:
    """The notebook that writes the file; None if no notebook writes it, or each its own."""
    if network and file.writer == TRAINING:
        return TRAINING_NOTEBOOKS[network]
    return next(
        (name for name in NOTEBOOKS if is_meant(name, file.writer) and file.writer != TRAINING),
        None,
    )


# Who writes what, and what each notebook reads from others; a star matches many names.
WRITTEN_BY = {
    name: writer
    for file in RUN_FILES
    for name, network in _names(file).items()
    if not name.endswith("/") and (writer := _writer(file, network)) is not None
}
READS = {
    notebook: tuple(
        name
        for file in RUN_FILES
        if any(is_meant(notebook, word) for word in file.readers.split())
        for name in _names(file)
    )
    for notebook in NOTEBOOKS
}


def written_by(name: str) -> str | None:
    """The notebook that writes the file `name` of a run folder; None if no notebook does."""
    return next((writer for each, writer in WRITTEN_BY.items() if fnmatch(name, each)), None)


def needs(notebook: str) -> list[str]:
    """The notebooks whose files `notebook` reads, in order."""
    owners = {WRITTEN_BY.get(name) for name in READS[notebook]}
    return [name for name in NOTEBOOKS if name in owners]


def entry_of(name: str) -> RunFile | None:
    """The entry of the file `name` of a run folder; None if it is not in the catalogue."""
    return next((file for file in RUN_FILES for each in _names(file) if fnmatch(name, each)), None)


def as_markdown() -> str:
    """The catalogue as the table of `outputs/README.md`."""
    rows = ["| file | written by | what it holds |", "|---|---|---|"]
    words = {TRAINING: "04 to 06"}
    for file in RUN_FILES:
        name = file.name.replace("NETWORK/", "<architecture>/")
        rows.append(f"| `{name}` | {words.get(file.writer, file.writer)} | {file.says} |")
    return "\n".join(rows) + "\n"


# Codes, not numbers: patient 007 must not become 7.
TEXT = dict.fromkeys(
    """image_id label patient slide group sha256 family stain mask split model architecture reason
    finding other detail site subtype category magnification protocol labels level judged_on rule
    chosen_on fitted_on method first second certainty weights recipe predictions shift amount column
    left_out interval device name split_given check asks kind map chance_of passed noise_passed
    neighbour nearest nearest_label refer_why converted format file warning note engine decision
    subgroup worst best""".split(),
    "str",
)
# Columns that name a patient or a file; `row` holds the names of rows of other tables.
NAMING = {"image_id", "patient", "slide", "group", "other", "neighbour", "nearest", "row"}


# ------------------------------------------------------------------- types of JSON files

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
# A key with an exclamation mark is required. Other keys may be there, of any type if not listed.
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
        "given": {"said": TEXTS},
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
        **dict.fromkeys(("engine!", "engine_why"), str),
        "image_size": int,
        "seed": int,
    },
    "*/timing.json": {"parameters": int, "device": str},
    "verification.json": {"verified!": str, "files!": int, "different!": int},
}
