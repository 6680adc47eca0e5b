"""What the paper reports for the benchmarks, beside which our own figures are set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Reported:
    """A row of Tables 4 to 6, in per cent.

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
        Reported("ZS3Net (ResNet-101)", (40.8, 39.4, 39.3, 33.6), 38.3, 57.7, "4a"),
        Reported("SPNet (ResNet-101)", (23.8, 17.0, 14.1, 18.3), 18.3, 44.3, "4a"),
        Reported("ClsCLIP+", (75.4, 79.2, 60.4, 71.1), 71.5, 80.6, "4b"),
        Reported("DCAMA (1 shot, Swin-B)", (72.2, 73.8, 64.3, 67.1), 69.3, 78.5, "4b"),
        Reported("FPTrans (1 shot, DeiT-B/16)", (72.3, 70.6, 68.3, 64.1), 68.8, None, "4b"),
        Reported("BAM (1 shot, ResNet-50)", (69.0, 73.6, 67.6, 61.1), 67.8, None, "4b"),
        Reported("DACM (1 shot, ResNet-101)", (68.7, 73.5, 63.4, 64.2), 67.5, 78.9, "4b"),
        Reported("IPRNet (1 shot, ResNet-101)", (67.8, 74.6, 65.7, 62.2), 67.5, None, "4b"),
        Reported("HSNet (1 shot, ResNet-101)", (67.3, 72.3, 62.0, 63.1), 66.2, 77.6, "4b"),
        Reported("IPMT (1 shot, ResNet-101)", (71.6, 73.5, 58.0, 61.2), 66.1, None, "4b"),
        Reported("PFENet (1 shot, ResNet-101)", (60.5, 69.4, 54.4, 55.9), 60.1, 72.9, "4b"),
        Reported("RePRI (1 shot, ResNet-101)", (59.6, 68.6, 62.2, 47.2), 59.4, None, "4b"),
        Reported("DAN (1 shot, ResNet-101)", (54.7, 68.6, 57.8, 51.6), 58.2, 71.9, "4b"),
        Reported("FWB (1 shot, ResNet-101)", (51.3, 64.5, 56.7, 52.2), 56.2, None, "4b"),
        Reported("PGNet (1 shot, ResNet-50)", (56.0, 66.9, 50.6, 50.4), 56.0, 69.9, "4b"),
        Reported("PPNet (1 shot, ResNet-101)", (52.7, 62.8, 57.4, 47.7), 55.2, 70.9, "4b"),
        Reported("PANet (1 shot, ResNet-50)", (44.0, 57.5, 50.8, 44.0), 49.1, None, "4b"),
        Reported("YOLO boxes as masks", (), 55.5, 71.8, "6"),
    ),
    "coco-20i": (
        Reported("ClsCLIP", (34.1, 40.0, 38.2, 35.7), 37.0, 64.5, "5a"),
        Reported("CLIPSeg", (34.2, 38.9, 34.9, 31.9), 35.0, 62.5, "5a"),
        Reported("LSeg (ViT-L/16)", (28.1, 27.5, 30.0, 23.2), 27.2, 59.9, "5a"),
        Reported("ZS3Net (ResNet-101)", (18.8, 20.1, 24.8, 20.5), 21.1, 55.1, "5a"),
        Reported("ClsCLIP+", (55.0, 49.9, 54.6, 52.2), 52.9, 73.9, "5b"),
        Reported("DCAMA (1 shot, Swin-B)", (49.5, 52.7, 52.8, 48.7), 50.9, None, "5b"),
        Reported("FPTrans (1 shot, DeiT-B/16)", (44.4, 48.9, 50.6, 44.0), 47.0, None, "5b"),
        Reported("IPRNet (1 shot, ResNet-101)", (42.9, 50.6, 46.8, 47.4), 46.9, None, "5b"),
        Reported("BAM (1 shot, ResNet-50)", (43.4, 50.6, 47.5, 43.4), 46.2, None, "5b"),
        Reported("IPMT (1 shot, ResNet-101)", (40.5, 45.7, 44.8, 39.3), 42.6, None, "5b"),
        Reported("HSNet (1 shot, ResNet-101)", (37.2, 44.1, 42.4, 41.3), 41.2, 69.1, "5b"),
        Reported("DACM (1 shot, ResNet-50)", (37.5, 44.3, 40.6, 40.1), 40.6, 68.9, "5b"),
        Reported("PFENet (1 shot, ResNet-101)", (36.8, 41.8, 38.7, 36.7), 38.5, 63.0, "5b"),
        Reported("RePRI (1 shot, ResNet-50)", (32.0, 38.7, 32.7, 33.1), 34.1, None, "5b"),
        Reported("RPMM (1 shot, ResNet-50)", (29.5, 36.8, 28.9, 27.0), 30.6, None, "5b"),
        Reported("PPNet (1 shot, ResNet-50)", (28.1, 30.8, 29.5, 27.7), 29.0, None, "5b"),
        Reported("DAN (1 shot, ResNet-101)", (), 24.4, 62.3, "5b"),
        Reported("FWB (1 shot, ResNet-101)", (17.0, 18.0, 21.0, 28.9), 21.2, None, "5b"),
    ),
}
"""By dataset: Tables 4 and 5, and what Table 6 has beside them."""


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
        Of the own method, for its row.
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
