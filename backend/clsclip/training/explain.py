"""Show where the [CLS] of a model looks in an image, with its own and with replaced [CLS]."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from pydantic import Field
from tifffile import imwrite

from clsclip.config import DeviceSettings, SegmentSettings
from clsclip.errors import FileError
from clsclip.image_files import read_image
from clsclip.model.files import write_atomically
from clsclip.predict.predictor import Predictor
from clsclip.predict.transforms import to_rgb
from clsclip.segmentation import AttentionMaps
from clsclip.training.attention_figure import attention_figure
from clsclip.typed_words import parse_words


class ExplainSettings(SegmentSettings, DeviceSettings):
    """What is to be shown of which model."""

    image: Path = Field(title="Image", description="Image file.")
    words: str = Field(
        title="Words", description="What to look for: one word or several, with commas."
    )
    layers: tuple[int, ...] = Field(
        (),
        title="Layers",
        description="Layers of the visual encoder, counted from 0; may be repeated. Without: the "
        "last one.",
    )
    zoom: float | None = Field(
        None,
        title="Zoom",
        description="Model pixels per image pixel; more than fit the network's input are looked at "
        "window by window. Empty: one look at the whole image, as in the paper.",
        gt=0.0,
        le=16.0,
    )


def explain(settings: ExplainSettings, output: Path) -> tuple[Path, Path]:
    """Write the attention maps of an image as a figure and as numbers.

    Parameters
    ----------
    settings : ExplainSettings
    output : Path
        Folder; made if it is not there.

    Returns
    -------
    figure : Path
        ``<stem>-attention.png``: see :func:`attention_figure`.
    maps : Path
        ``<stem>-attention.ome.tif``: float32, axes CYX; for each layer the original map, then
        that of each word, named. Values are those of :class:`AttentionMaps`.

    Raises
    ------
    FileError
        If the image cannot be read, or nothing can be written.
    ClsClipError
        What :meth:`clsclip.predict.predictor.Predictor.attention` raises.
    """
    words, image = parse_words(settings.words), read_image(settings.image)
    rgb = np.round(to_rgb(image) * 255).astype(np.uint8)
    maps = Predictor(settings.model, device=settings.device).attention(
        image, words, zoom=settings.zoom, templates=settings.templates, layers=settings.layers
    )
    png = io.BytesIO()
    attention_figure(rgb, maps).save(png, format="png", optimize=True)
    figure = output / f"{settings.image.stem}-attention.png"
    numbers = output / f"{settings.image.stem}-attention.ome.tif"
    try:
        output.mkdir(parents=True, exist_ok=True)
        write_atomically(figure, png.getvalue())
        write_atomically(numbers, _tiff(maps))
    except OSError as error:
        raise FileError(
            f"'{output}' cannot be written to ({error}). Give another --output."
        ) from error
    return figure, numbers


def _tiff(maps: AttentionMaps) -> bytes:
    names, planes = [], []
    for i, layer in enumerate(maps.layers):
        names.append(f"layer {layer}, original [CLS]")
        planes.append(maps.original[i])
        for word, replaced in zip(maps.words, maps.replaced, strict=True):
            names.append(f"layer {layer}, [CLS] of {word}")
            planes.append(replaced[i])
    content = io.BytesIO()
    imwrite(
        content, np.stack(planes).astype(np.float32), ome=True, compression="zlib",
        photometric="minisblack", metadata={"axes": "CYX", "Channel": {"Name": names}},
    )  # fmt: skip
    return content.getvalue()
