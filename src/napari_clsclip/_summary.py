"""What the Segment tab says about a result."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clsclip.segmentation import Segmentation
from clsclip.wire import Progress
from napari_clsclip._layers import PlaneIndex
from napari_clsclip._predicted_objects import Table
from napari_clsclip._supervisor import BackendState, BackendStatus

_WORDS_TOLD_APART = 5


def waiting_words(progress: Progress | None, status: BackendStatus) -> str:
    """What a segmentation waits for, or how far it is."""
    if progress is None:
        starting = status.state is BackendState.STARTING
        return "Waiting for the backend to start …" if starting else "Segmenting …"
    if progress.state == "queued":
        return "Waiting for earlier requests …"
    return f"Segmenting … step {progress.done} of {progress.total or '?'}"


def classes_found(words: tuple[str, ...], data: NDArray[np.uint16], index: PlaneIndex) -> str:
    """How much of a plane or region each word takes.

    Parameters
    ----------
    words : tuple of str
    data : ndarray of uint16, shape of the layer
        Class ids; word ``k`` has the id ``k + 1``.
    index : PlaneIndex
    """
    labels, part = index.view(data), "plane" if index.whole else "region"
    if len(words) > _WORDS_TOLD_APART:
        return f"{len(words)} words {np.count_nonzero(labels) / labels.size:.1%} of the {part}"
    shares = (
        f"{word} {np.count_nonzero(labels == k) / labels.size:.1%}"
        for k, word in enumerate(words, start=1)
    )
    return f"{', '.join(shares)} of the {part}"


def objects_found(words: tuple[str, ...], table: Table) -> str:
    """How many objects of each word there are, and how many painted ones of no known word."""
    if len(words) > _WORDS_TOLD_APART:
        return f"{len(table['index']):,} objects of {len(words)} words"
    counts = {word: int(np.count_nonzero(table["class"] == word)) for word in words}
    if painted := int(np.count_nonzero(table["class"] == "")):
        counts["painted"] = painted
    *first, last = (f"{count:,} {word}" for word, count in counts.items())
    ending = f"{last} {'object' if counts.popitem()[1] == 1 else 'objects'}"
    return ", ".join([*first, ending])


def regions_used(segmentation: Segmentation) -> str:
    """Where the words were looked for and why; empty if no regions were asked for."""
    words, reasons = segmentation.words, segmentation.region_reasons
    if len(set(reasons)) <= 1:
        return " ".join(dict.fromkeys(reasons))
    return " ".join(f"{word}: {reason}" for word, reason in zip(words, reasons, strict=True))
