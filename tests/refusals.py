"""The message that the user sees if input is refused."""

import pytest

from cytology.settings import InputError


def refused(call, *arguments):
    """The sentence with which `call` refuses its arguments."""
    with pytest.raises(InputError) as error:
        call(*arguments)
    return str(error.value)
