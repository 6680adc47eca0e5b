"""What the Learn tab says, and the numbers on the axes of its curves."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clsclip.wire_training import Change, Version, VersionList
from napari_clsclip._curve_axes import axis, tick_text
from napari_clsclip._training_words import (
    can_go_on,
    changes_line,
    doing,
    eta_words,
    headline,
    outcome,
    scores_after,
    version_details,
)
from stub_training import BEGUN, CHANGES, MINI, training


def change(word: str, before: float | None, after: float | None, learnt: bool = False) -> Change:
    return Change(word=word, before=before, after=after, learnt=learnt)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ((), ""),
        (CHANGES, "rosette 0.02 → 0.51 on held-out images; nucleus 0.83 → 0.82 where known before"),
        ((change("a", None, None, True),), "a not measured"),
        ((change("a", None, 0.5, True),), "a ? → 0.50 on held-out images"),
        (
            (change("a", None, None, True), change("b", 0, 0.5, True)),
            "b 0.00 → 0.50 on held-out images; a not measured",
        ),
        (
            tuple(change(word, 0.5, 0.5 - i / 10) for i, word in enumerate("abcde")),
            "e 0.50 → 0.10, d 0.50 → 0.20, c 0.50 → 0.30 and 2 more where known before",
        ),
    ],
)
def test_changes_are_told_in_one_line(changes: tuple[Change, ...], line: str) -> None:
    assert changes_line(changes) == line


@pytest.mark.parametrize(
    ("state", "promoted", "active", "said"),
    [
        ("running", None, "mini", ""),
        ("done", True, "mini-v2", "mini-v2 is the active version now. So it is."),
        ("done", True, "mini", "mini-v2 is kept, but not active. So it is."),
        (
            "done",
            False,
            "mini-v2",
            "mini-v2 is the active version because you have chosen it. So it is.",
        ),
        ("cancelled", False, "mini", "mini-v2 is kept, but not active. So it is."),
        ("cancelled", None, "mini", "So it is."),
        ("failed", None, "mini", "So it is."),
        (
            "interrupted",
            None,
            "mini",
            "42% of its time was over. Continue goes on from its last checkpoint.",
        ),
    ],
)
def test_outcome(state: Any, promoted: bool | None, active: str, said: str) -> None:
    made = () if promoted is None else (Version(name="mini-v2", parent="mini"),)
    versions = VersionList(versions=(*made, MINI), active=active)
    ended = training(state=state, promoted=promoted, reason="So it is")
    assert outcome(ended, versions) == said
    assert can_go_on(ended) is (state in ("failed", "interrupted") or said == "So it is.")
    assert ("Learnt rosette" in headline(ended)) is (promoted is not None)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("", ""),
        ("Reading images", "Reading images"),
        (" 19.2%  0.1 min  step 30  mask 1.3663", "step 30, mask 1.3663"),
    ],
)
def test_what_it_is_doing(told: str, said: str) -> None:
    assert doing(training(doing=told)) == said


def test_versions_in_the_table() -> None:
    version = Version(
        name="v2", parent="mini", created=BEGUN, words=("rosette", "spindle"), changes=CHANGES,
        promoted=True, note="Tuesday", available=False,
        reason="Files are missing",
    )  # fmt: skip
    assert scores_after(version) == "rosette 0.51, spindle"
    made = f"{BEGUN.astimezone():%Y-%m-%d %H:%M}"
    assert version_details(version, [training("v2", state="done", reason="Better")]).split(
        "\n"
    ) == [
        f"Made {made} from mini.",
        "IoU before → after: rosette 0.02 → 0.51 on held-out images; "
        "nucleus 0.83 → 0.82 where known before.",
        "Promoted. Better.",
        "Note: Tuesday",
        "It cannot be used now. Files are missing.",
    ]
    assert version_details(MINI) == "The bundled model."


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, ""), (math.inf, ""), (-3.0, "about 0 s left"), (41.0, "about 45 s left"),
        (200.0, "about 3 min left"), (9000.0, "about 2.5 h left"),
    ],
)  # fmt: skip
def test_time_that_is_left(seconds: float | None, words: str) -> None:
    assert eta_words(seconds) == words


@given(st.lists(st.floats(0, 1e6), max_size=5), st.integers(2, 6))
def test_an_axis_shows_every_value_and_has_few_round_ticks(
    values: list[float], most_ticks: int
) -> None:
    found = axis(values, least=0.1, most_ticks=most_ticks)
    assert found.ticks[0] == found.low == 0
    assert found.high >= max((*values, 0.1)) * (1 - 1e-9)
    assert found.ticks[-1] == pytest.approx(found.high)
    assert 2 <= len(found.ticks) <= most_ticks
    texts = [tick_text(tick, found) for tick in found.ticks]
    assert [float(text) for text in texts] == pytest.approx(found.ticks)
    assert all(0 <= found.place(value) <= 1 + 1e-9 for value in values)
