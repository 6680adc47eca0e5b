"""Random views of annotated images: scale, geometry, light. All in numpy and torch on the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from clsclip.predict.regions import Box, frame_around, inside
from clsclip.predict.transforms import resize, to_tensor
from clsclip.training.examples import Example

DIAMETERS: Final = (7.0, 110.0)
"""Range of object diameters, in model pixels, to which microscopy is zoomed (log-uniform)."""

LAST_DIAMETERS: Final = (32.0, 90.0)
"""The same of half of the views: those at which the predictor looks last, see
:mod:`clsclip.zoom`, where outlines are drawn."""

UNCHANGED_SHARE: Final = 0.4
"""Share of views of microscopy whose light and colours stay as they are."""

PHOTO_PART: Final = (0.35, 1.0)
"""Range of the part of a photograph's shorter side that a view shows."""

CLOSE_PART: Final = (0.06, 0.35)
"""The same for close views: textures and edges, in which microscopists' words must not be seen."""

CLOSE_SHARE: Final = 0.2
"""Share of close views among those of photographs."""

GREY_SHARE: Final = 0.2
"""Share of photographs whose colours are taken away, as scientific cameras do."""

REGION_SHARE: Final = (0.5, 0.1)
"""Share of views that show one object's box, as ClsCLIP+ does: of photographs, of all others."""

EXACT_ZOOM: Final = (0.6, 2.2)
"""Range of the model pixels per image pixel of views whose colours and shapes are kept
(log-uniform)."""

EXACT_LIGHT: Final = 0.15
"""How much their light and colours change, as a part of what photographs undergo: no pink of
:mod:`clsclip.training.scenes.colours` turns into red by it."""

REGION_JITTER: Final = 0.04
"""Largest error of such a box, as a part of its height or width."""

VISIBLE_PIXELS: Final = 12
"""Pixels of the original image from which on a word counts as visible in a view."""


@dataclass(frozen=True)
class View:
    """A square of an example, and how it is turned: where and how to look.

    Attributes
    ----------
    example : Example
    size : int
        S, side in model pixels.
    top, left, height, width : int
        The part of the image, in its pixels; what lies outside is filled up.
    flipped : bool
    quarters : int
        Right-angled turns.
    region : tuple of str and Box, or None
        The word and the box of the object that the view shows, if it shows one.
    """

    example: Example
    size: int
    top: int
    left: int
    height: int
    width: int
    flipped: bool
    quarters: int
    region: tuple[str, Box] | None = None

    @property
    def microscopy(self) -> bool:
        """Whether scale and direction mean nothing in the example."""
        return self.example.diameter is not None

    def visible(self, word: str) -> bool:
        """Whether the mask of a word reaches into the view."""
        top, left = max(self.top, 0), max(self.left, 0)
        part = self.example.masks[word][top : self.top + self.height, left : self.left + self.width]
        return int(np.count_nonzero(part)) >= VISIBLE_PIXELS

    def image(self, rng: np.random.Generator) -> Tensor:
        """Relit RGB in [0, 1], float32, shape (3, S, S)."""
        strength = EXACT_LIGHT if self.example.exact else 1.0
        return relight(self.pixels(), self.microscopy, rng, strength)

    def pixels(self) -> Tensor:
        """RGB in [0, 1] as it is, float32, shape (3, S, S)."""
        mirrored = self.microscopy and self.region is None
        pixels = self._take(self.example.image, "symmetric" if mirrored else "edge")
        return resize(to_tensor(np.divide(pixels, 255, dtype=np.float32)), self._square)[0]

    def mask(self, word: str) -> Tensor:
        """Mask of a word that has one, bool, shape (S, S)."""
        return self._scaled(self.example.masks[word])

    def valid(self) -> Tensor:
        """Pixels whose masks are vouched for, bool, shape (S, S)."""
        known = torch.ones(self._square, dtype=torch.bool)
        if self.example.ignore is not None:
            known &= ~self._scaled(self.example.ignore)
        return known

    def boxed(self) -> Tensor:
        """Pixels inside the box of the region (all, if there is none), bool, shape (S, S)."""
        if self.region is None:
            return torch.ones(self._square, dtype=torch.bool)
        rows, columns = self.example.image.shape[:2]
        filled = np.zeros((rows, columns), dtype=bool)
        filled[inside(self.region[1], (rows, columns))] = True
        return self._scaled(filled)

    @property
    def _square(self) -> tuple[int, int]:
        return (self.size, self.size)

    def _scaled(self, plane: NDArray[np.bool_]) -> Tensor:
        mirrored = self.microscopy and self.region is None
        fill = "symmetric" if mirrored else "zero"
        piece = torch.from_numpy(self._take(plane, fill).astype(np.float32))
        return resize(piece[None, None], self._square)[0, 0] >= 0.5

    def _take(self, plane: NDArray[Any], fill: str) -> NDArray[Any]:
        """Cut, fill up what lies outside the image, turn."""
        top, left = max(self.top, 0), max(self.left, 0)
        piece = plane[top : self.top + self.height, left : self.left + self.width]
        missing = (self.height - piece.shape[0], self.width - piece.shape[1])
        if any(missing):
            before = (top - self.top, left - self.left)
            widths = [(b, m - b) for b, m in zip(before, missing, strict=True)]
            widths += [(0, 0)] * (plane.ndim - 2)
            mode: Any = "constant" if fill == "zero" else fill
            piece = np.pad(piece, widths, mode=mode)
        return np.rot90(piece[:, ::-1] if self.flipped else piece, self.quarters)


def patch_parts(plane: Tensor, side: int) -> Tensor:
    """Part of each patch that is true, row by row, float32, shape (m,).

    Parameters
    ----------
    plane : Tensor of bool, shape (S, S)
    side : int
        Of a patch.
    """
    return F.avg_pool2d(plane[None].float(), side).flatten()


def random_view(
    example: Example,
    size: int,
    rng: np.random.Generator,
    unseen: frozenset[str] = frozenset(),
) -> View:
    """Choose a part of an example and its scale.

    Microscopy is zoomed so that its objects take any diameter of :data:`DIAMETERS`, in half of the
    views one of :data:`LAST_DIAMETERS`; of a photograph the view shows a large part, or little,
    and may be stretched, but not if words name shapes. Of all it may show one object's box with a
    margin.

    Parameters
    ----------
    example : Example
    size : int
        S, side of the view in model pixels.
    rng : numpy Generator
    unseen : frozenset of str
        Words whose boxes are not used.
    """
    rows, columns = example.image.shape[:2]
    flipped = bool(rng.random() < 0.5)
    boxed = sorted((example.boxes.keys() & example.masks.keys()) - unseen)
    photograph = example.diameter is None and not example.exact
    if boxed and rng.random() < REGION_SHARE[not photograph]:
        return _region(example, boxed[int(rng.integers(len(boxed)))], size, flipped, rng)
    if example.diameter is not None:
        low, high = np.log(DIAMETERS if rng.random() < 0.5 else LAST_DIAMETERS)
        zoom = float(np.exp(rng.uniform(low, high))) / example.diameter
        side = round(size / float(np.clip(zoom, 0.25, 8.0)))
        side = max(8, min(side, 2 * max(rows, columns)))
        top, left = _corner(rows, side, rng), _corner(columns, side, rng)
        return View(example, size, top, left, side, side, flipped, int(rng.integers(4)))
    if example.exact:
        side = round(size / float(np.exp(rng.uniform(*np.log(EXACT_ZOOM)))))
        side = max(16, min(side, max(rows, columns)))
        top, left = _corner(rows, side, rng), _corner(columns, side, rng)
        return View(example, size, top, left, side, side, flipped, 0)
    side = round(min(rows, columns) * rng.uniform(*PHOTO_PART))
    if rng.random() < CLOSE_SHARE:
        side = round(min(rows, columns) * np.exp(rng.uniform(*np.log(CLOSE_PART))))
    elif rng.random() < 0.25:
        side = max(rows, columns)
    height = width = max(side, 16)
    if rng.random() < 0.5:
        stretch = float(np.exp(rng.uniform(-0.25, 0.25)))
        height, width = round(side * stretch), round(side / stretch)
    top, left = _corner(rows, height, rng), _corner(columns, width, rng)
    return View(example, size, top, left, height, width, flipped, 0)


def _corner(length: int, window: int, rng: np.random.Generator) -> int:
    """First pixel of a window on an axis: anywhere inside, centred where it is larger."""
    if window >= length:
        return -((window - length) // 2)
    return int(rng.integers(0, length - window + 1))


def _region(
    example: Example, word: str, size: int, flipped: bool, rng: np.random.Generator
) -> View:
    boxes = example.boxes[word]
    top, left, bottom, right = (float(v) for v in boxes[int(rng.integers(len(boxes)))])
    errors = rng.uniform(-REGION_JITTER, REGION_JITTER, 4)
    height, width = bottom - top, right - left
    top, bottom = top + errors[0] * height, bottom + errors[1] * height
    left, right = left + errors[2] * width, right + errors[3] * width
    box = (top, left, bottom, right)
    frame = frame_around(box, (example.image.shape[0], example.image.shape[1]))
    quarters = int(rng.integers(4)) if example.diameter is not None else 0
    return View(
        example, size, frame.top, frame.left, frame.height, frame.width, flipped, quarters,
        (word, box),
    )  # fmt: skip


def relight(
    image: Tensor, microscopy: bool, rng: np.random.Generator, strength: float = 1.0
) -> Tensor:
    """Change light and colour as microscopes and cameras do.

    Parameters
    ----------
    image : Tensor of float32, shape (3, S, S)
        RGB in [0, 1].
    microscopy : bool
        Also inversion (fluorescence to brightfield), other stains and tints, uneven light; but
        nothing at all in :data:`UNCHANGED_SHARE` of the cases.
    rng : numpy Generator
    strength : float, in (0, 1]
        How far brightness, contrast and tint may go; below 1, colours are never taken away.

    Returns
    -------
    Tensor of float32, shape (3, S, S), in [0, 1]
    """
    if microscopy:
        if rng.random() < UNCHANGED_SHARE:
            return image
        image = _restain(image, rng)
    elif strength == 1.0 and rng.random() < GREY_SHARE:
        image = image.mean(0, keepdim=True).expand(3, -1, -1)
    if rng.random() < 0.5:
        image = image.clamp(1e-4, 1) ** float(np.exp(strength * rng.uniform(-0.6, 0.6)))
    if rng.random() < 0.6:
        gain = float(np.exp(strength * rng.uniform(-0.7, 0.3)))
        image = (image - 0.5) * gain + 0.5 + strength * float(rng.uniform(-0.2, 0.2))
    if rng.random() < 0.3:
        gains = np.exp(strength * rng.uniform(-0.25, 0.25, 3)).astype(np.float32)
        image = image * torch.from_numpy(gains)[:, None, None]
    if rng.random() < 0.25:
        image = _blur(image, float(rng.uniform(0.3, 1.8)))
    if rng.random() < 0.3:
        noise = rng.standard_normal(image.shape[1:], dtype=np.float32)
        image = image + float(rng.uniform(0.005, 0.05)) * torch.from_numpy(noise)
    return image.clamp(0, 1)


def _restain(image: Tensor, rng: np.random.Generator) -> Tensor:
    if rng.random() < 0.4:
        low, high = float(image.min()), float(image.max())
        image = (image - low) / max(high - low, 1e-3)
    if rng.random() < 0.2:
        image = _stain(image, rng)
    elif rng.random() < 0.25:
        image = 1 - image
    if rng.random() < 0.2:
        image = image[torch.from_numpy(rng.permutation(3))]
    if rng.random() < 0.2:
        image = image.mean(0, keepdim=True).expand(3, -1, -1)
    if rng.random() < 0.15:
        tint = rng.uniform(0.0, 1.0, 3).astype(np.float32)
        tint /= tint.max()
        image = image * torch.from_numpy(tint)[:, None, None]
    if rng.random() < 0.25:
        image = image * _smooth_field(image, rng, 0.5, 1.2)
    return image.clamp(0, 1)


def _stain(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Redraw as transmitted light: what differs from the background absorbs one dye.

    Beer-Lambert: each dye's amount times its colour's optical density adds up. A second, paler
    dye lies over the whole field unevenly, as eosin does.
    """
    grey = image.mean(0)
    amount = (grey - grey.median()).abs()
    amount = amount / amount.max().clamp(min=0.05)
    dyes = np.array([rng.uniform(0.05, 0.75, 3), rng.uniform(0.55, 1.0, 3)], dtype=np.float32)
    density = -np.log(dyes)
    ground = _smooth_field(image, rng, 0.0, 1.0)[0]
    absorbed = torch.from_numpy(density[0])[:, None, None] * amount * float(rng.uniform(0.7, 1.5))
    absorbed = absorbed + torch.from_numpy(density[1])[:, None, None] * ground
    return torch.exp(-absorbed)


def _smooth_field(image: Tensor, rng: np.random.Generator, low: float, high: float) -> Tensor:
    """A slowly varying plane, shape (1, S, S)."""
    coarse = torch.from_numpy(rng.uniform(low, high, (1, 1, 3, 3)).astype(np.float32))
    return F.interpolate(coarse, image.shape[1:], mode="bicubic", align_corners=True)[0]


def _blur(image: Tensor, sigma: float) -> Tensor:
    blurred = ndimage.gaussian_filter(image.numpy(), (0, sigma, sigma), truncate=2.5)
    return torch.from_numpy(blurred)
