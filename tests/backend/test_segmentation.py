from __future__ import annotations

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from clsclip.errors import InvalidConfigError
from clsclip.segmentation import Segmentation


@given(
    probabilities=arrays.arrays(np.uint8, arrays.array_shapes(min_dims=3, max_dims=3, max_side=5)),
    threshold=st.one_of(
        st.floats(1e-12, 1.0), st.integers(1, 255).map(lambda q: q / 255), st.just(0.5)
    ),
)
def test_labels_by_definition(probabilities: NDArray[np.uint8], threshold: float) -> None:
    words = tuple(f"w{k}" for k in range(len(probabilities)))
    result = Segmentation(probabilities, words, "m", "v", (1.0,) * len(words), 0.0)
    labels = result.labels(threshold)
    assert labels.dtype == np.uint16
    for y, x in np.ndindex(labels.shape):
        values = [int(q) for q in probabilities[:, y, x]]
        reaches = max(values) > 0 and max(values) + 1e-6 >= threshold * 255
        assert labels[y, x] == (values.index(max(values)) + 1 if reaches else 0)


@pytest.mark.parametrize("threshold", [0.0, -0.1, 1.001, float("nan")])
def test_labels_refuse_a_threshold(threshold: float) -> None:
    result = Segmentation(np.zeros((1, 2, 2), np.uint8), ("a",), "m", "v", (1.0,), 0.0)
    with pytest.raises(InvalidConfigError, match="threshold"):
        result.labels(threshold)
