"""mIoU and FB-IoU beside an independent computation from confusion matrices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from clsclip.training.metrics import Scores


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["cat", "dog", "sheep"]),
            *(st.sampled_from([0.0, 0.05, 0.5, 1.0]) for _ in range(2)),  # of mask and truth
            st.sampled_from([0.0, 0.3, 1.0]),  # of ignored pixels
            st.integers(0, 2**32 - 1),
        ),
        min_size=1, max_size=6,
    )
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_as_from_confusion_matrices(cases: list[tuple[str, float, float, float, int]]) -> None:
    scores = Scores()
    counts: dict[str, np.ndarray] = {}
    for word, *parts, seed in cases:
        rng = np.random.default_rng(seed)
        predicted, truth, ignore = (rng.random((7, 9)) < part for part in parts)
        scores.add(word, predicted, truth, ignore)
        predicted, truth = predicted[~ignore], truth[~ignore]
        if truth.size:
            here = confusion_matrix(truth, predicted, labels=[False, True])
            counts[word] = counts.get(word, np.zeros((2, 2), int)) + here
    # rows are the truth: foreground is met [1, 1], missed [1, 0], made up [0, 1]
    unions = {word: m[1, 1] + m[1, 0] + m[0, 1] for word, m in counts.items()}
    expected = {word: counts[word][1, 1] / union for word, union in unions.items() if union}
    assert scores.per_class == pytest.approx(expected, abs=1e-6)
    if expected:
        assert scores.miou == pytest.approx(np.mean(list(expected.values())), abs=1e-6)
    else:
        assert np.isnan(scores.miou)  # no class has any pixel
    total = sum(counts.values(), np.zeros((2, 2), int))
    wrong = total[1, 0] + total[0, 1]
    both = [right / (right + wrong) if right + wrong else 1.0 for right in np.diag(total)]
    assert scores.fb_iou == pytest.approx(np.mean(both), abs=1e-6)
