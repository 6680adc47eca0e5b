"""Losses per (image, word) pair and per (image, text) pair."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor


def mask_loss(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Binary cross-entropy plus soft Dice, each the mean over pairs (ours; the paper is silent).

    The Dice term is left out for empty masks, where it knows no degrees: there the
    cross-entropy alone pushes every pixel to the background.

    Parameters
    ----------
    logits, target, valid : Tensor, shape (P, H, W)
        Foreground logits, masks and pixels that count, of P (image, word) pairs.

    Returns
    -------
    Tensor, scalar
    """
    logits, target, valid = logits.float(), target.float(), valid.float()
    pixels = F.binary_cross_entropy_with_logits(logits, target, reduction="none") * valid
    entropy = pixels.sum((1, 2)) / valid.sum((1, 2)).clamp(min=1)
    probability = logits.sigmoid() * valid
    target = target * valid
    overlap = 2 * (probability * target).sum((1, 2))
    size = probability.sum((1, 2)) + target.sum((1, 2))
    dice = 1 - (overlap + 1) / (size + 1)
    filled = (target.sum((1, 2)) > 0).float()
    return entropy.sum() / max(len(entropy), 1) + (dice * filled).sum() / filled.sum().clamp(min=1)


SEEN_WEIGHT: Final = 0.3
"""Weight of the cross-entropy of a word's presence, for heads that look at it."""


def seen_loss(presence: Tensor, visible: Tensor) -> Tensor:
    """Weighted binary cross-entropy of whether a word is in a view, both of shape (P,)."""
    loss = F.binary_cross_entropy_with_logits(presence.float(), visible.float())
    return SEEN_WEIGHT * loss


def recall_loss(logits: Tensor, answers: Tensor) -> Tensor:
    """Divergence of foreground probabilities from those that an older model gave (ours).

    Kullback-Leibler divergence per pixel, mean over pixels and pairs: 0 where nothing changed, so
    what the older model knows is kept, and nothing is claimed about what it does not.

    Parameters
    ----------
    logits, answers : Tensor, shape (P, H, W)
        Foreground logits, and probabilities of the older model in [0, 1].

    Returns
    -------
    Tensor, scalar

    References
    ----------
    Li & Hoiem, Learning without Forgetting, ECCV 2016.
    """
    logits, answers = logits.float(), answers.float().clamp(1e-4, 1 - 1e-4)
    entropy = F.binary_cross_entropy(answers, answers, reduction="none")
    crossed = F.binary_cross_entropy_with_logits(logits, answers, reduction="none")
    return (crossed - entropy).mean()


LOOK_CELLS = 8
"""Side in pixels of the cells over which logits are averaged before the highest are taken."""

LOOK_PART = 0.08
"""Part of the cells that a word must fill at least to be called present."""


def presence_loss(logits: Tensor) -> Tensor:
    """Binary cross-entropy of "the word is somewhere in the image", for words without a mask.

    Multiple-instance learning: the mean over the cells with the highest logits must say yes.
    That such words are nowhere in images without them is said by :func:`mask_loss`.

    Parameters
    ----------
    logits : Tensor, shape (P, H, W)
        Foreground logits of pairs whose word is present.

    Returns
    -------
    Tensor, scalar
        Sum over the pairs.
    """
    cells = F.avg_pool2d(logits.float()[:, None], LOOK_CELLS).flatten(1)
    highest = cells.topk(max(1, int(LOOK_PART * cells.shape[1])), dim=1).values.mean(1)
    return F.softplus(-highest).sum()


HIDDEN_WEIGHT: Final = 4.0
"""Weight of all patches that do not show a word, beside all that do."""

NEVER: Final = -1e4
"""Logit of what is not to be chosen."""

SOMEWHERE_WEIGHT: Final = 0.3
"""Weight of all words that are somewhere in an image, likewise."""


def match_loss(logits: Tensor, shown: Tensor, hidden: Tensor, somewhere: Tensor) -> Tensor:
    """Whether patches show words, for any number of words per view, and which words they show.

    Two losses are added: the binary cross-entropy of each patch and word; and, for each word that
    a patch shows, the cross-entropy of choosing it among all that the patch does not show. Most
    words are easily told from what a patch shows; the second loss looks at those that are not
    ("red star" where there is a red circle), of which the mean of the first knows little. Of a
    word that is somewhere in an image, nobody says where, the mean over the patches with the
    highest logits must say yes, as in :func:`presence_loss`.

    Parameters
    ----------
    logits : Tensor, shape (P, T, m)
    shown, hidden : Tensor of bool, shape (P, T, m)
        Patches that show a word and those that do not; the others do not count.
    somewhere : Tensor of bool, shape (P, T)

    Returns
    -------
    Tensor, scalar
    """
    logits = logits.float()
    loss = HIDDEN_WEIGHT * _mean(F.softplus(logits), hidden) + _mean(F.softplus(-logits), shown)
    others = logits.masked_fill(~hidden, NEVER).logsumexp(1, keepdim=True)
    loss = loss + _mean(F.softplus(others - logits), shown)
    highest = logits.topk(max(1, int(LOOK_PART * logits.shape[2])), dim=2).values.mean(2)
    return loss + SOMEWHERE_WEIGHT * _mean(F.softplus(-highest), somewhere)


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """Mean over what is counted, 0 where nothing is."""
    return (values * counted).sum() / counted.sum().clamp(min=1)


def sigmoid_contrast(similarity: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Sigmoid contrastive loss for images with any number of matching texts.

    Pairs for which it is not known whether the text fits do not count. Matching and other pairs
    weigh the same in total.

    Parameters
    ----------
    similarity : Tensor, shape (B, T)
        Scaled and shifted cosine similarity of B images and T texts.
    target, known : Tensor of bool, shape (B, T)

    Returns
    -------
    Tensor, scalar

    References
    ----------
    Zhai et al., Sigmoid Loss for Language Image Pre-Training, ICCV 2023.
    """
    loss = F.binary_cross_entropy_with_logits(similarity.float(), target.float(), reduction="none")
    positive, negative = (target & known).float(), (~target & known).float()
    zero = torch.finfo(torch.float32).tiny
    return (loss * positive).sum() / (positive.sum() + zero) + (loss * negative).sum() / (
        negative.sum() + zero
    )
