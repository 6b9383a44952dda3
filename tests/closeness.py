"""Arrays of floats compared as far as their arithmetic reaches."""

import numpy as np


def assert_close(found, expected, share=1e-3):
    """No value is off by more than `share` of the largest expected one.

    Processors sum in different orders, so float32 errs by a share of the terms and not of what is
    left of them: a value near zero, among large ones, has few digits to compare.
    """
    expected = np.asarray(expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=share * np.abs(expected).max())
