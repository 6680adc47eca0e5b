"""Figure 3 as a picture: image, attention with the original and with the replaced [CLS]."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from clsclip.segmentation import AttentionMaps, brightest_attention

PANEL: Final = 320
"""Pixels of the longer side of a panel."""

_GAP: Final = 8
_TEXT: Final = 15
_LINE: Final = 24
_BAR: Final = 12


def attention_figure(image: NDArray[np.uint8], maps: AttentionMaps) -> Image.Image:
    """Draw a row per word and layer; both maps of a row have one scale, which stands below.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        RGB.
    maps : AttentionMaps
        Of the same H and W.

    Returns
    -------
    Image
        RGB. Letters that Pillow's own font lacks are drawn as boxes.
    """
    zoom = PANEL / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * zoom)), max(1, round(image.shape[0] * zoom)))
    shown = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
    column, height = max(size[0], PANEL) + _GAP, _LINE + size[1] + _GAP + _BAR + _LINE
    rows = [(k, i) for k in range(len(maps.words)) for i in range(len(maps.layers))]
    figure = Image.new("RGB", (_GAP + 3 * column, height * len(rows)), "white")
    for number, (k, i) in enumerate(rows):
        both = np.stack([maps.original[i], maps.replaced[k, i]])
        most = brightest_attention(both)
        place, top = ImageDraw.Draw(figure), number * height
        titles = ("image", f"layer {maps.layers[i]}, original [CLS]", f"[CLS] of “{maps.words[k]}”")
        pictures = (shown, *(_coloured(_panel(values, size) / most) for values in both))
        for c, (title, picture) in enumerate(zip(titles, pictures, strict=True)):
            left = _GAP + c * column
            _write(place, (left, top), title, column - _GAP)
            figure.paste(picture, (left, top + _LINE))
        left, below, length = _GAP + column, top + _LINE + size[1] + _GAP, 2 * column - _GAP
        ramp = np.broadcast_to(np.linspace(0, 1, length, dtype=np.float32), (_BAR, length))
        figure.paste(_coloured(ramp), (left, below))
        _write(place, (left, below + _BAR), "0", length)
        end = f"{most:.1f} even shares"
        right = left + length - round(place.textlength(end, _font()))
        _write(place, (right, below + _BAR), end, length)
    return figure


def _panel(values: NDArray[np.float16], size: tuple[int, int]) -> NDArray[np.float32]:
    picture = Image.fromarray(values.astype(np.float32))
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR), np.float32)


def _coloured(values: NDArray[np.float32]) -> Image.Image:
    """A map of 0 to 1 in colours, dark to bright."""
    import cv2  # it takes long, and sets environment variables for its own Qt

    grey = np.round(values.clip(0, 1) * 255).astype(np.uint8)
    return Image.fromarray(cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO)[..., ::-1].copy())


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(_TEXT)


def _write(place: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, width: int) -> None:
    """Write a line that is no wider than it may be."""
    font = _font()
    if place.textlength(text, font) > width:
        while text and place.textlength(f"{text}…", font) > width:
            text = text[:-1]
        text += "…"
    place.text((corner[0], corner[1] + 3), text, "black", font)
