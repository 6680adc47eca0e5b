"""What the paper reports for the benchmarks, beside which our own figures are set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Reported:
    """A row of Tables 4 and 5, in per cent.

    Attributes
    ----------
    method : str
    folds : tuple of float, or empty
        mIoU of folds 0 to 3, where it is reported.
    miou : float
        Mean over the folds.
    fb_iou : float or None
    table : str
        Of the paper.
    """

    method: str
    folds: tuple[float, ...]
    miou: float
    fb_iou: float | None
    table: str


REPORTED: Final = {
    "pascal-5i": (
        Reported("ClsCLIP", (59.9, 61.2, 50.5, 54.1), 56.4, 67.9, "4a"),
        Reported("CLIPSeg", (53.9, 62.0, 42.8, 48.0), 51.7, 66.2, "4a"),
        Reported("LSeg (ViT-L/16)", (61.3, 63.6, 43.1, 41.0), 52.3, 67.0, "4a"),
        Reported("ZS3Net (ResNet-101)", (), 38.3, 57.7, "4a"),
        Reported("SPNet (ResNet-101)", (), 18.3, 44.3, "4a"),
        Reported("ClsCLIP+", (75.4, 79.2, 60.4, 71.1), 71.5, 80.6, "4b"),
        Reported("DCAMA (1 shot)", (), 69.3, 78.5, "4b"),
        Reported("FPTrans (1 shot)", (), 68.8, None, "4b"),
    ),
    "coco-20i": (
        Reported("ClsCLIP", (34.1, 40.0, 38.2, 35.7), 37.0, 64.5, "5a"),
        Reported("CLIPSeg", (), 35.0, 62.5, "5a"),
        Reported("LSeg", (), 27.2, 59.9, "5a"),
        Reported("ZS3Net", (), 21.1, 55.1, "5a"),
        Reported("ClsCLIP+", (55.0, 49.9, 54.6, 52.2), 52.9, 73.9, "5b"),
        Reported("DCAMA (1 shot)", (), 50.9, None, "5b"),
    ),
}
"""By dataset: Tables 4 and 5."""


def beside_the_paper(dataset: str, fold: int, miou: float, fb_iou: float, name: str) -> str:
    """A table in Markdown: own figures of a fold, and those that the paper reports.

    Parameters
    ----------
    dataset : str
        "pascal-5i" or "coco-20i".
    fold : int, 0 to 3
    miou, fb_iou : float, 0 to 1
        Own figures.
    name : str
        Of the own model, for its row.
    """
    rows: list[tuple[str, ...]] = [
        ("method", f"mIoU, fold {fold}", "mIoU, mean of folds", "FB-IoU", "source"),
        ("---", "---:", "---:", "---:", "---"),
        (name, f"{100 * miou:.1f}", "", f"{100 * fb_iou:.1f} (this fold)", "measured here"),
    ]
    rows += [_row(each, fold) for each in REPORTED[dataset]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(reported: Reported, fold: int) -> tuple[str, ...]:
    of_fold = f"{reported.folds[fold]:.1f}" if reported.folds else ""
    fb_iou = "" if reported.fb_iou is None else f"{reported.fb_iou:.1f}"
    source = f"paper, Table {reported.table}"
    return reported.method, of_fold, f"{reported.miou:.1f}", fb_iou, source
