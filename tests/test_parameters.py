"""Parameters are declared once; a refusal says what is allowed."""

import pytest

from cytology.notebook import own_parameters
from cytology.parameters import (
    FIELDS,
    FIXED_PARAMETERS,
    allowed,
    check_parameter,
    check_parameters,
    choices,
)
from cytology.run import open_run
from cytology.settings import PROJECT_ROOT, InputError

NOTEBOOKS = sorted((PROJECT_ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
# Values that no parameter accepts, or only few.
WRONG = (None, [], {}, object(), float("nan"), float("inf"), "\0", "many", -1, True, 10**400)
NEVER = ("\0", float("nan"), [])


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("seed", -1, "Parameter `seed` is -1; it must be a whole number from 0 to 4,294,967,295."),
        (
            "seed",
            True,
            "Parameter `seed` is True; it must be a whole number from 0 to 4,294,967,295.",
        ),
        (
            "seed",
            1.5,
            "Parameter `seed` is 1.5; it must be a whole number from 0 to 4,294,967,295.",
        ),
        ("folds", 1, "Parameter `folds` is 1; it must be a whole number from 2 to 20."),
        ("fit", "crop", "Parameter `fit` is 'crop'; it must be one of pad, stretch."),
        ("orientations", 2, "Parameter `orientations` is 2; it must be one of 1, 4, 8."),
        ("orientations", True, "Parameter `orientations` is True; it must be one of 1, 4, 8."),
        ("fine_tune", 1, "Parameter `fine_tune` is 1; it must be true or false."),
        ("data", None, "Parameter `data` is None; it must be text."),
        (
            "learning_rate",
            "fast",
            "Parameter `learning_rate` is 'fast'; it must be a number from 1e-09 to 1 "
            "or nothing (None).",
        ),
    ],
)
def test_a_bad_parameter_is_refused_with_what_is_allowed(name, value, sentence):
    with pytest.raises(InputError) as error:
        check_parameter(name, value)
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    ("name", "value"),
    [("learning_rate", None), ("learning_rate", 1), ("val_share", 0.4), ("seed", 0), ("data", "x")],
)
def test_good_parameters_are_accepted(name, value):
    check_parameter(name, value)


@pytest.mark.parametrize(
    ("together", "part"),
    [
        ({"val_share": 0.4, "test_share": 0.3}, "must add up to at most 0.6"),
        ({"train_head": False, "fine_tune": False}, "nothing would be trained"),
        ({"fine_tune": False, "fine_tune_from": "last"}, "`fine_tune` is false: make it true"),
        ({"protocol": "given", "given_split": ""}, "'given', but `given_split` is empty"),
        ({"protocol": "original", "given_split": "folders"}, "remove one of them"),
    ],
)
def test_parameters_are_checked_together(together, part):
    with pytest.raises(InputError, match=part):
        check_parameters(together)


@pytest.mark.parametrize("name", FIELDS)
def test_wrong_values_are_refused_with_name_and_what_is_allowed(name):
    refused = []
    for value in (*WRONG, *NEVER):
        try:
            check_parameter(name, value)
        except InputError as error:
            assert f"Parameter `{name}` is" in str(error) and allowed(name) in str(error)
            refused.append(value)
    assert len(refused) >= 9 and all(any(each is value for each in refused) for value in NEVER)


@pytest.mark.parametrize("name", [name for name in FIELDS if choices(name)])
def test_every_allowed_choice_is_accepted(name):
    for value in choices(name):
        check_parameter(name, value)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_parameter_of_every_notebook_is_declared(path):
    assert set(own_parameters(path)) <= FIELDS.keys() | set(FIXED_PARAMETERS)


def test_every_declared_parameter_is_used_in_a_notebook():
    assert {name for path in NOTEBOOKS for name in own_parameters(path)} >= FIELDS.keys()


@pytest.mark.parametrize("below", ["", "run", "a/b/run"])
def test_a_run_inside_the_data_is_refused(tmp_path, below):
    def opened(run_dir):
        return open_run("01_data_exploration", parameters(run_dir, data=str(tmp_path / "data")))

    with pytest.raises(InputError, match="Parameter `run_dir` is .*, inside the data folder"):
        opened(tmp_path / "data" / below)
    assert not (tmp_path / "data").exists()
    opened(tmp_path / "run")


def parameters(run_dir, **others):
    """The globals of notebook 01 after its parameters cell."""
    return own_parameters(NOTEBOOKS[0]) | {"run_dir": str(run_dir)} | others
