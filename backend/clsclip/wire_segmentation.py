"""The answer of ``POST /v1/segment``: a segmentation as an ``.npz`` archive. No torch.

Reasons, proposals, owners and attention are not sent where there are none, so that plugins of
before there were any understand.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt

from clsclip.errors import InvalidRequestError
from clsclip.npz import decode_npz, encode_npz
from clsclip.segmentation import AttentionMaps, RegionUsed, Segmentation
from clsclip.wire import DrawnBox, Message, read_message

_ATTENTION: Final = ("attention_original", "attention_replaced")


class _Proposal(Message):
    """A :class:`clsclip.segmentation.RegionUsed`."""

    box: DrawnBox
    score: Annotated[float, Field(ge=0, le=1)] | None
    origin: str


class _SegmentationMeta(Message):
    words: tuple[str, ...]
    model: str
    model_version: str
    zooms: tuple[float, ...]
    seconds: float
    region_reasons: tuple[str, ...] = ()
    proposals: tuple[tuple[_Proposal, ...], ...] = ()
    attention_layers: tuple[NonNegativeInt, ...] = ()


def encode_segmentation(result: Segmentation) -> bytes:
    """Bytes of the answer of ``POST /v1/segment``."""
    meta = _SegmentationMeta(
        words=result.words,
        model=result.model,
        model_version=result.model_version,
        zooms=result.zooms,
        seconds=result.seconds,
        region_reasons=result.region_reasons,
        proposals=tuple(
            tuple(_Proposal(box=r.box, score=r.score, origin=r.origin) for r in regions)
            for regions in result.proposals
        ),
        attention_layers=() if result.attention is None else result.attention.layers,
    )
    text = meta.model_dump_json(exclude_defaults=True)
    further: dict[str, NDArray[Any]] = {}
    if result.owners is not None:
        further["owners"] = result.owners
    if result.attention is not None:
        further.update(zip(_ATTENTION, (result.attention.original, result.attention.replaced),
                           strict=True))  # fmt: skip
    return encode_npz(text, probabilities=result.probabilities, **further)


def decode_segmentation(body: bytes, max_bytes: int) -> Segmentation:
    """Read the answer of ``POST /v1/segment``.

    Parameters
    ----------
    body : bytes
        An ``.npz`` archive with the members ``probabilities``, ``meta``, and where the
        segmentation has them ``owners``, ``attention_original`` and ``attention_replaced``.
    max_bytes : int
        Most bytes that the arrays may take once unpacked.

    Returns
    -------
    Segmentation
        Its arrays are read-only.

    Raises
    ------
    InvalidRequestError, RequestTooLargeError
        If the bytes are not such an answer.
    """
    arrays, text = decode_npz(body, ("probabilities",), max_bytes, optional=("owners", *_ATTENTION))
    meta = read_message(_SegmentationMeta, text)
    probabilities, owners = arrays["probabilities"], arrays.get("owners")
    if (
        probabilities.dtype != np.uint8
        or probabilities.ndim != 3
        or not 0 < len(probabilities) == len(meta.words) == len(meta.zooms)
        or len(meta.region_reasons) not in (0, len(meta.words))
        or len(meta.proposals) not in (0, len(meta.words))
        or (owners is not None and owners.dtype != np.uint16)
        or (owners is not None and owners.shape != probabilities.shape)
    ):
        raise InvalidRequestError(
            f"The backend's answer holds {probabilities.dtype} of shape {probabilities.shape}; "
            f"expected uint8 of shape ({len(meta.words)}, height, width). "
            "Plugin and backend should be the same version of napari-clsclip."
        )
    proposals = tuple(
        tuple(RegionUsed(region.box, region.score, region.origin) for region in regions)
        for regions in meta.proposals
    )
    return Segmentation(probabilities, meta.words, meta.model, meta.model_version, meta.zooms,
                        meta.seconds, meta.region_reasons, proposals, owners,
                        _attention(arrays, meta))  # fmt: skip


def _attention(arrays: dict[str, NDArray[Any]], meta: _SegmentationMeta) -> AttentionMaps | None:
    """Attention maps of an answer, if it has any."""
    present = [name for name in _ATTENTION if name in arrays]
    if not (present or meta.attention_layers):
        return None
    maps = [arrays[name] for name in present]
    words, *size = arrays["probabilities"].shape
    expected = [(len(meta.attention_layers), *size), (words, len(meta.attention_layers), *size)]
    if [array.shape for array in maps] != expected or any(
        array.dtype != np.float16 for array in maps
    ):
        raise InvalidRequestError(
            "The backend's answer holds attention maps "
            f"{[f'{array.dtype} {array.shape}' for array in maps]}; expected float16 of shapes "
            f"{expected}. Plugin and backend should be the same version of napari-clsclip."
        )
    return AttentionMaps(meta.words, meta.attention_layers, *maps)
