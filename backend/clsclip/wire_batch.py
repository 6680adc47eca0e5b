"""What plugin and backend say to each other about labelling folders, and about reviewing that.

=======  =====================================  ===============================================
method   route                                  answer
=======  =====================================  ===============================================
POST     ``/v1/batches/preview``                :class:`BatchPreview` of a :class:`BatchRequest`
POST     ``/v1/batches/check``                  :class:`BatchCheck` of a :class:`BatchRequest`
GET      ``/v1/batches``                        :class:`BatchList`
POST     ``/v1/batches``                        201, :class:`Batch`; it runs from now on
GET      ``/v1/batches/NAME``                   :class:`Batch`
POST     ``/v1/batches/NAME/pause``             :class:`Batch`; it waits after the present file
POST     ``/v1/batches/NAME/resume``            :class:`Batch`; it goes on, also with what failed;
                                                the body may be :class:`BatchCopies`
DELETE   ``/v1/batches/NAME``                   :class:`Batch`; it ends, and what is done stays
GET      ``/v1/batches/NAME/files``             :class:`BatchFiles`
GET      ``/v1/batches/NAME/files/K/thumbnail`` PNG
PUT      ``/v1/batches/NAME/files/K/review``    :class:`BatchFile`, accepted
DELETE   ``/v1/batches/NAME/files/K/review``    :class:`BatchFile`, no longer accepted
=======  =====================================  ===============================================

``NAME`` is the name of a batch, ``K`` the number of a file in it, from 0. Everything is JSON but
thumbnails and the body of a review: that is empty where the labels are right as they are, else an
npz of the corrected labels, see :func:`encode_review`. A batch runs in a process of its own that
outlives the backend; everything that is known of it is on disk. All paths are of the backend's
machine.

Files that the backend cannot read itself, but a reader plugin of somebody's napari, are read there:
the plugin writes a copy of each into the folder :data:`COPIES_FOLDER` of the output folder, and
tells of them (:class:`ImageCopy`). Everything else still names the file itself. ``copies`` and
``copied_to`` are only sent where there are such files; a backend of before there were any refuses
them by name. Nothing here imports torch.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from clsclip.config import (
    ChannelSettings,
    FolderSettings,
    InstanceSettings,
    RegionSettings,
    SegmentSettings,
    ThresholdSettings,
)
from clsclip.errors import InvalidRequestError
from clsclip.npz import decode_npz, encode_npz
from clsclip.wire import Message, read_message

BATCH_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""What the name of a batch looks like: nuclei-2026-11-25-2."""

MOST_FILES: Final = 1000
"""Most rows of one answer about files."""

COPIES_FOLDER: Final = ".read"
"""Folder in the output folder for copies of images that only napari can read."""

BatchState = Literal["running", "paused", "done", "failed", "cancelled", "interrupted"]
FileStatus = Literal["waiting", "done", "failed"]


def _empty(value: object) -> bool:
    return not value


class ImageCopy(Message):
    """A file that napari reads for the backend, and what came of that."""

    file: str = Field(description="Path of the image.")
    copied_to: str = Field("", description="Path of its copy, an OME-TIFF. Empty: none (yet).")
    error: str = Field("", description="Why there is none.")


class BatchCopies(Message):
    """Files that napari has read, also anew, for a batch that goes on."""

    copies: tuple[ImageCopy, ...]


class BatchRequest(
    SegmentSettings, RegionSettings, ThresholdSettings, InstanceSettings, FolderSettings,
    ChannelSettings,
):  # fmt: skip
    """What to label, how, and where to."""

    inputs: tuple[str, ...] = Field(
        min_length=1,
        title="Input",
        description="Image files, zarr folders, or folders of these, of the backend's machine.",
    )
    words: tuple[str, ...] = Field(
        min_length=1,
        title="Words",
        description="What to label: one word or a short phrase, or several with commas.",
    )
    output: str = Field(min_length=1, title="Output", description="Folder for the labels.")
    copies: tuple[ImageCopy, ...] = Field(
        (),
        title="Copies",
        description="Files that napari reads. Those of a folder count only if they are named here. "
        "What is told of a batch does not repeat them.",
        exclude_if=_empty,
    )


class BatchCheck(Message):
    """A batch could be started now, once its files are read."""

    files: int


class BatchPreview(Message):
    """What a batch would do."""

    files: int
    accepted: int = Field(description="Of these, accepted ones, which are left alone.")
    bytes: int = Field(description="Size of all files.")
    pixels: int = Field(description="Of all files; guessed from some of them if there are many.")
    first: tuple[str, ...] = Field(description="Paths of the first files.")
    seconds: float | None = Field(
        description="How long it takes about, from one of the files; None: that one failed."
    )
    notes: tuple[str, ...] = Field((), description="What a person should know, in sentences.")


class Batch(Message):
    """How a batch stands."""

    name: str
    request: BatchRequest
    started: datetime = Field(description="In UTC.")
    state: BatchState
    reason: str = Field("", description="Why it failed, was interrupted or could not begin.")
    doing: str = Field("", description="What it does, for people.")
    files: int = Field(description="0: they have not been listed yet.")
    done: int
    failed: int
    accepted: int
    seconds: float = Field(description="Time worked on it, over all its sessions.")
    eta_seconds: float | None = Field(None, description="Until it is done; None: not known.")


class BatchList(Message):
    """Answer of ``GET /v1/batches``, the newest first."""

    batches: tuple[Batch, ...]


class BatchFile(Message):
    """How one file of a batch stands."""

    number: int
    file: str = Field(description="Path of the image.")
    status: FileStatus
    seconds: float | None = None
    error: str = Field("", description="Why it failed.")
    objects: int | None = None
    score: float | None = Field(
        None,
        description="Expected IoU of the least certain word, 0 to 1; see clsclip.ranking. None: "
        "nothing was found.",
    )
    labels: str = Field("", description="Path of the label file, once there is one.")
    accepted: bool = False
    corrected: bool = Field(False, description="Whether it was corrected when it was accepted.")
    copied_to: str = Field(
        "", description="Path of the copy that napari made of it, if any.", exclude_if=_empty
    )


FileOrder = Literal["name", "score"]


class BatchFiles(Message):
    """Answer of ``GET /v1/batches/NAME/files?start=0&count=100&status=&order=name``.

    ``status`` picks files, ``order=score`` puts the least certain of the labelled ones first.
    """

    total: int = Field(description="Files of this status.")
    files: tuple[BatchFile, ...]


class _ReviewMeta(Message):
    """The member ``meta`` of the body of a review."""

    kind: Literal["review"] = "review"


def encode_review(labels: NDArray[Any]) -> bytes:
    """Body of a review with corrected labels.

    Parameters
    ----------
    labels : ndarray of integer, shape (H, W) or (planes, H, W)
        As the label file has them: class ids, or ids of single objects.
    """
    return encode_npz(_ReviewMeta().model_dump_json(), labels=labels)


def decode_review(body: bytes, max_bytes: int) -> NDArray[np.uint32]:
    """Read the body of a review with corrected labels.

    Parameters
    ----------
    body : bytes
    max_bytes : int
        Most bytes that the labels may take once unpacked.

    Returns
    -------
    ndarray of uint32, shape (H, W) or (planes, H, W)
        Whether it is the shape of the image is for the batch to say.

    Raises
    ------
    InvalidRequestError, RequestTooLargeError
    """
    arrays, text = decode_npz(body, ("labels",), max_bytes)
    read_message(_ReviewMeta, text)
    labels = arrays["labels"]
    if labels.dtype.kind not in "ui" or labels.ndim not in (2, 3) or labels.size == 0:
        raise InvalidRequestError(
            f"The corrected labels are {labels.dtype} of shape {labels.shape}; expected integers "
            "of the shape of the image."
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > np.iinfo(np.uint32).max:
        raise InvalidRequestError(
            f"The corrected labels go from {low} to {high}; ids lie between 0 and 2^32 - 1."
        )
    return labels.astype(np.uint32)
