"""How large a pixel is, from what image files say about it.

Sizes that are told as such (OME, ImageJ, OME-Zarr) are believed where they have a unit of length.
The resolution tags of a TIFF file are often those of a printer or a screen, or what a program
writes by default: they are believed only where a pixel is smaller than :data:`PRINTED`.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tifffile import TiffFile, TiffPage

PRINTED: Final = 10.0
"""Micrometres. Pixels of 2400 per inch and less, which printers and screens have, are wider."""

PixelSize = tuple[float, float]
"""Height and width in micrometres."""

_MICROMETRES: Final = {
    "pm": 1e-6, "picometer": 1e-6, "Å": 1e-4, "angstrom": 1e-4,
    "nm": 1e-3, "nanometer": 1e-3, "nanometre": 1e-3,
    "µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0,
    "micrometre": 1.0,
    "mm": 1e3, "millimeter": 1e3, "millimetre": 1e3, "cm": 1e4, "centimeter": 1e4,
    "dm": 1e5, "decimeter": 1e5, "m": 1e6, "meter": 1e6, "metre": 1e6,
    "in": 25400.0, "inch": 25400.0,
}  # fmt: skip
"""Of the units of OME (symbols) and OME-Zarr (names), and of what ImageJ writes for them."""

_INCH: Final = 2
_CENTIMETRE: Final = 3


def tiff_pixel_size(file: TiffFile) -> PixelSize | None:
    """Of the full resolution of the first image of a TIFF file."""
    if file.is_ome:
        return _ome_pixel_size(file.ome_metadata or "")
    page = file.pages[0]
    if not isinstance(page, TiffPage):
        return None
    per_unit = [_per_unit(page, name) for name in ("YResolution", "XResolution")]
    if file.is_imagej:
        unit = str((file.imagej_metadata or {}).get("unit", "")).replace(r"\u00B5", "µ")
        return pixel_size([1 / n if n else 0.0 for n in per_unit], [unit, unit])
    unit_tag = page.tags.get("ResolutionUnit")
    unit = {_INCH: "inch", _CENTIMETRE: "cm"}.get(int(unit_tag.value) if unit_tag else 0, "")
    size = pixel_size([1 / n if n else 0.0 for n in per_unit], [unit, unit])
    return size if size is not None and max(size) < PRINTED else None


def pixel_size(sizes: Sequence[float], units: Sequence[str]) -> PixelSize | None:
    """Height and width of a pixel in their units; None where these are no positive lengths."""
    factors = [_MICROMETRES.get(unit, 0.0) for unit in units]
    height, width = (float(size) * factor for size, factor in zip(sizes, factors, strict=True))
    if not all(math.isfinite(side) and side > 0 for side in (height, width)):
        return None
    return float(f"{height:.9g}"), float(f"{width:.9g}")  # 1 / (1 / 0.65) is 0.65


def ome_zarr_pixel_size(image: Mapping[str, Any], level: int) -> PixelSize | None:
    """Of a resolution level of an OME-Zarr image.

    Parameters
    ----------
    image : mapping
        The first of its ``multiscales``.
    level : int
    """
    axes = image.get("axes") or ()
    named = {axis["name"]: k for k, axis in enumerate(axes) if isinstance(axis, Mapping)}
    if not {"y", "x"} <= set(named):
        return None
    sizes = [1.0] * len(axes)
    for transform in (
        *image["datasets"][level].get("coordinateTransformations", ()),
        *image.get("coordinateTransformations", ()),
    ):
        scale = transform.get("scale")
        if transform.get("type") == "scale" and scale is not None:
            sizes = [size * float(factor) for size, factor in zip(sizes, scale, strict=True)]
    places = [named["y"], named["x"]]
    return pixel_size([sizes[k] for k in places], [str(axes[k].get("unit", "")) for k in places])


def _ome_pixel_size(text: str) -> PixelSize | None:
    try:
        root = ET.fromstring(text)  # noqa: S314 - expat resolves no external entities
    except ET.ParseError:  # the image itself may be sound
        return None
    pixels = root.find(".//{*}Pixels")
    if pixels is None:
        return None
    sizes = [_number(pixels.get(f"PhysicalSize{axis}")) for axis in "YX"]
    return pixel_size(sizes, [pixels.get(f"PhysicalSize{axis}Unit", "µm") for axis in "YX"])


def _per_unit(page: TiffPage, name: str) -> float:
    tag = page.tags.get(name)
    value = None if tag is None else tag.value
    if isinstance(value, tuple) and len(value) == 2:
        return float(value[0]) / float(value[1]) if value[1] else 0.0
    return _number(value)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0
