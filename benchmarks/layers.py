"""Which layers should the text's [CLS] replace? Table 3 of the paper at the scale of mini.

Trains one head per set of layers and seed on the same frozen towers, and measures each one:

    python benchmarks/layers.py --clip runs/clip/clip --data DIR --nuclei DIR/nuclei/val \
        --steps 120 --output runs/layers

Runs that are there already are not trained again, so that the command can be repeated.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import mean, stdev

from clsclip.training.evaluate import EvaluateSettings, evaluate
from clsclip.training.fit import FitSettings, fit

SETS = ((0, 1, 2), (2, 5, 8), (9, 10, 11), (2, 3, 4))
SHARE = ("scenes=3", "nuclei=3", "coco_mini=2", "blood_cells=1", "caltech101=1")


def measure(layers: tuple[int, ...], seed: int, args: argparse.Namespace) -> dict[str, float]:
    """Train one head, if it is not there yet, and measure it."""
    run = args.output / f"{'-'.join(map(str, layers))}_seed{seed}"
    file = run / "figures.json"
    if file.is_file():
        found: dict[str, float] = json.loads(file.read_text())
        return found
    settings = FitSettings(
        clip=str(args.clip), data=str(args.data), share=SHARE, unseen=str(args.unseen),
        replaced_layers=layers, steps=args.steps, batch_size=12, accumulate=1, cycles=1, pairs=2,
        image_size=160, seed=seed, detail_channels=args.detail_channels,
    )  # fmt: skip
    fit(settings, run, resume=run.exists())
    nuclei = evaluate(
        EvaluateSettings(
            model=str(run), images=str(args.nuclei / "images"), labels=str(args.nuclei / "labels"),
            word="nucleus",
        )
    )  # fmt: skip
    scenes = evaluate(
        EvaluateSettings(model=str(run), data="scenes", limit=args.scenes, unseen=str(args.unseen))
    )
    figures = {
        "nuclei IoU": nuclei.miou, "scenes FB-IoU": scenes.fb_iou,
        "seen mIoU": scenes.parts["seen"].miou, "unseen mIoU": scenes.parts["unseen"].miou,
    }  # fmt: skip
    file.write_text(json.dumps(figures, indent=2) + "\n")
    return figures


def main() -> int:
    """Print one row per set of layers: mean and standard deviation over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--nuclei", type=Path, required=True, help="Holds images/ and labels/.")
    parser.add_argument("--unseen", type=Path, default=Path(__file__).with_name("unseen.txt"))
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scenes", type=int, default=60)
    parser.add_argument("--detail-channels", type=int, default=0)
    args = parser.parse_args()
    rows: dict[tuple[int, ...], list[dict[str, float]]] = {layers: [] for layers in SETS}
    for seed in range(args.seeds):
        for layers in SETS:
            rows[layers].append(measure(layers, seed, args))
            print(f"{layers} seed {seed}: {rows[layers][-1]}", file=sys.stderr, flush=True)
    names = list(rows[SETS[0]][0])
    print(f"| layers | {' | '.join(names)} |\n|{' --- |' * (len(names) + 1)}")
    for layers, found in rows.items():
        cells = []
        for name in names:
            values = [100 * figures[name] for figures in found]
            spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{mean(values):.1f}{spread}")
        print(f"| {', '.join(map(str, layers))} | {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
