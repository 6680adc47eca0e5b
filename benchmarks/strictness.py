"""How well a patch must fit a word: masks of present and of absent words by scale and shift.

    python benchmarks/strictness.py [--model mini] [--scenes 160]

The comparison of patches and words lowers masks where they do not fit (``clsclip.model.match``), by
two numbers that training leaves where losses are least, not where masks are best. For some pairs of
them the table gives the mIoU of drawn scenes, in one look at the whole image of half the side: of
words that are there, and of absent ones asked in their place (``evaluate --shuffled``). The scenes
are other ones than those of ``evaluate``. ``bundle --match-scale --match-shift`` sets the numbers.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clsclip.config import DEFAULT_MODEL
from clsclip.model.checkpoint import load_model
from clsclip.model.clsclip import ClsClip
from clsclip.model.match import Match
from clsclip.model.registry import find_model
from clsclip.predict.transforms import resize, to_tensor
from clsclip.training.scenes import Scenes
from clsclip.words import withheld, word_list

SEED, WORDS = 31_337, 4
UNSEEN = Path(__file__).with_name("unseen.txt")
SCALES, SHIFTS = (1.5, 3.0, 4.5, 6.0), (0.0, -1.0, -2.0, -3.0, -4.0)


@dataclass(frozen=True)
class Question:
    """A word asked of a scene, on a grid of half the network's side.

    ``word`` is the one whose mask ``truth`` is; ``present`` whether it was asked or an absent one.
    ``lowered`` are the logits without the comparison, ``fits`` those of the comparison.
    """

    word: str
    present: bool
    lowered: Tensor
    fits: Tensor
    truth: Tensor


def questions(model: ClsClip, match: Match, count: int) -> list[Question]:
    """Some words of each scene, half of them unseen ones, and an absent one beside each.

    ``match`` is the comparison of the model, which was taken out of it.
    """
    scenes, rng = Scenes(SEED, count=count), np.random.default_rng(SEED)
    unseen = withheld(scenes.words, word_list(str(UNSEEN)))
    side = model.image_size // 2
    found = []
    for index in range(count):
        example = scenes[index]
        order = [str(word) for word in rng.permutation(sorted(example.masks))]
        first = [word for word in order if word in unseen][: WORDS // 2]
        words = (first + [word for word in order if word not in unseen])[:WORDS]
        absent = [word for word in scenes.words if word not in example.present]
        image = to_tensor(np.divide(example.image, 255, dtype=np.float32))
        encoded = model.encode(resize(image, (model.image_size, model.image_size)))
        for word in words:
            mask = torch.from_numpy(example.masks[word].astype(np.float32))[None, None]
            truth = F.interpolate(mask, (side, side), mode="area")[0, 0] > 0.5
            for asked in (word, str(rng.choice(absent))):
                text = model.text_cls([asked])
                tokens = model.guide(encoded.shallow, text)
                logits, _ = model.read(tokens, encoded, text)
                fits = match(tokens[:, 1:], text[:, None]).unflatten(2, encoded.grid)
                found.append(
                    Question(
                        word,
                        asked == word,
                        F.avg_pool2d(logits.float(), 2)[0],
                        F.interpolate(fits.float(), (side, side), mode="bilinear")[0, 0],
                        truth,
                    )
                )
    return found


def scores(asked: list[Question], scale: float, shift: float) -> dict[tuple[bool, str], float]:
    """IoU over all scenes by (present, word)."""
    both: defaultdict[tuple[bool, str], int] = defaultdict(int)
    either: defaultdict[tuple[bool, str], int] = defaultdict(int)
    for each in asked:
        marked = each.lowered - F.softplus(-(scale * each.fits + shift)) > 0
        both[each.present, each.word] += int((marked & each.truth).sum())
        either[each.present, each.word] += int((marked | each.truth).sum())
    return {key: both[key] / max(either[key], 1) for key in either}


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--scenes", type=int, default=160)
    args = parser.parse_args()
    model = load_model(find_model(args.model)).eval()
    if model.match is None:
        parser.error(f"The model '{args.model}' compares nothing; train one with fit --match.")
    match, model.match = model.match, None
    with torch.inference_mode():
        asked = questions(model, match, args.scenes)
    unseen = withheld([each.word for each in asked], word_list(str(UNSEEN)))
    own = (float(match.scale), float(match.shift))
    print("| scale | shift | unseen | seen | unseen, shuffled | seen, shuffled |")
    print("| --- | --- | --- | --- | --- | --- |")
    for scale, shift in (own, *product(SCALES, SHIFTS)):
        by_word = scores(asked, scale, shift)
        means = [
            np.mean([v for (p, w), v in by_word.items() if (p, w in unseen) == wanted])
            for wanted in ((True, True), (True, False), (False, True), (False, False))
        ]
        print(f"| {scale:.2f} | {shift:.2f} | {' | '.join(f'{mean:.3f}' for mean in means)} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
