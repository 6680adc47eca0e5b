"""Tables 6 and 7 of the paper as one table: what region proposals are worth, for photographs.

    python benchmarks/regions.py --data DIR --detector yolov8n_int8.onnx

DIR holds ``coco_mini`` (COCO), of which the validation part is measured. Each row is what one
``napari-clsclip-train evaluate`` prints. Table 6 compares the boxes of a detector, taken as masks,
with ClsCLIP+ inside them; Table 7 the detector's boxes with those that a person drew, here the
annotated ones. ``--whole`` adds two rows that look at whole images too, which takes several times
as long.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from clsclip.training.evaluate import EvaluateSettings, Evaluation, Figures, evaluate

BOXES = "boxes as masks"


def row(name: str, figures: Evaluation | Figures) -> str:
    """A line of the table, in per cent."""
    return f"| {name} | {100 * figures.miou:.1f} | {100 * figures.fb_iou:.1f} |"


def main() -> int:
    """Print one row per way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--detector", required=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--limit", type=int, default=300, help="Largest number of images.")
    parser.add_argument("--whole", action="store_true", help="Also look at whole images.")
    args = parser.parse_args()
    plain = EvaluateSettings(data=str(args.data / "coco_mini"), model=args.model, limit=args.limit)
    named = {"detector": args.detector}
    print("| way | mIoU | FB-IoU |\n| --- | --- | --- |", flush=True)
    found = evaluate(plain.model_copy(update={"regions": "detector", **named}))
    print(row("detector's boxes as masks", found.parts[BOXES]), flush=True)
    print(row("ClsCLIP+ in the detector's boxes", found), flush=True)
    manual = evaluate(plain.model_copy(update={"regions": "boxes"}))
    print(row("manual boxes as masks", manual.parts[BOXES]), flush=True)
    print(row("ClsCLIP+ in manual boxes", manual), flush=True)
    vouched = evaluate(plain.model_copy(update={"regions": "manual"}))
    print(row("ClsCLIP+ in manual boxes, vouched for", vouched), flush=True)
    if args.whole:
        print(row("ClsCLIP, whole image", evaluate(plain)), flush=True)
        automatic = evaluate(plain.model_copy(update={"regions": "auto", **named}))
        print(row("ClsCLIP+, `--regions auto`", automatic), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
