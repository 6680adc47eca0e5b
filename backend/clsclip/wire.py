"""What plugin and backend say to each other: requests, answers and their bytes.

Arrays travel as ``.npz`` archives whose member ``meta`` holds the JSON of a pydantic model as
UTF-8 bytes, see :mod:`clsclip.npz`. Everything else is JSON. The routes are:

=======  ==============================  ==========================================
method   route                           answer
=======  ==============================  ==========================================
GET      ``/v1/health``                  :class:`HealthReport`
GET      ``/v1/models``                  :class:`ModelList`
GET      ``/v1/window?model=NAME``       :class:`ModelWindow`
POST     ``/v1/segment?request_id=ID``   npz, see :mod:`clsclip.wire_segmentation`
GET      ``/v1/segment/ID``              :class:`Progress` of a running request
DELETE   ``/v1/segment/ID``              204; the request ends with ``cancelled``
=======  ==============================  ==========================================

What a request does not use of :class:`RegionSettings <clsclip.config.RegionSettings>`, drawn
boxes, :class:`PlanePart` and attention is not sent: without them, backends of before there were any
understand. With them, an older backend refuses the key by name.

Annotations have routes of their own, see :mod:`clsclip.wire_annotations`; so have trainings and
the versions that they make, see :mod:`clsclip.wire_training`, the labelling of folders, see
:mod:`clsclip.wire_batch`, and models that are fetched, see :mod:`clsclip.wire_models`.

``ID`` is chosen by the client, see ``REQUEST_ID_PATTERN``. Errors are :class:`ErrorAnswer`, see
:mod:`clsclip.errors`. Nothing here imports torch.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self, TypeVar

from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)

from clsclip.config import (
    AttentionSettings,
    RegionSettings,
    SegmentSettings,
)
from clsclip.errors import (
    InvalidImageError,
    InvalidRequestError,
)
from clsclip.npz import decode_npz, encode_npz
from clsclip.typed_words import check_words

API_PREFIX: Final = "/v1"
NPZ_MEDIA_TYPE: Final = "application/x-npz"
TOKEN_VARIABLE: Final = "NAPARI_CLSCLIP_TOKEN"  # noqa: S105 - a name, no token
"""Environment variable from which a backend takes its bearer token."""

REQUEST_ID_PATTERN: Final = "^[A-Za-z0-9_-]{1,64}$"
"""What a request id looks like; a UUID does."""

MAX_DRAWN_BOXES: Final = 3000
"""Drawn boxes per request."""

_NUMBER_KINDS: Final = "buif"
_SENT_IF_USED: Final = ("regions", "detector", "drawn", "part", "attention")


class Message(BaseModel):
    """Base of everything that crosses the wire: frozen, and unknown keys are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ErrorDetail(Message):
    """Code and text of an error."""

    code: str
    message: str


class ErrorAnswer(Message):
    """Body of every answer that is not a success."""

    error: ErrorDetail


class ReadyLine(Message):
    """The one line a backend prints on standard output once it listens."""

    url: str
    pid: int


class HealthReport(Message):
    """State of a backend; answered also while a segmentation runs."""

    status: Literal["ready"] = "ready"
    version: str = Field(description="Version of napari-clsclip that the backend runs.")
    device: str = Field(description="Compute device, for people: 'CPU (2 threads, bfloat16)'.")
    pid: int
    uptime_seconds: float
    queued: int = Field(description="Requests that wait.")
    running: int = Field(description="Requests that run now: 0 or 1.")
    loaded_models: tuple[str, ...]


class ModelInfo(Message):
    """One model that a request may name."""

    name: str
    description: str
    available: bool = Field(description="Whether it can be used now, without a download.")
    reason: str | None = Field(None, description="Why it is not available.")


class ModelList(Message):
    """Answer of ``GET /v1/models``; the active version comes first, then the bundled model."""

    models: tuple[ModelInfo, ...]


class ModelWindow(Message):
    """Answer of ``GET /v1/window``: how much of an image a model looks at at once."""

    image_size: int = Field(description="Side of the window of the network, in model pixels.")


class Progress(Message):
    """How far a request is."""

    state: Literal["queued", "running"]
    done: int = Field(description="Steps finished.")
    total: int = Field(description="Steps known so far; 0 before the first is known.")


def _with_area(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    top, left, bottom, right = box
    if not (top < bottom and left < right):
        raise ValueError("a box is (top, left, bottom, right), with top < bottom and left < right")
    return box


DrawnBox = Annotated[
    tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat], AfterValidator(_with_area)
]
"""Top, left, bottom, right in pixels of the image, the last two exclusive. The upper left corner
of the first pixel is (0, 0): in coordinates of napari, where that is (-0.5, -0.5), add 0.5."""


PartZoom = Annotated[FiniteFloat, Field(gt=0, le=16)]
"""Model pixels per image pixel."""


class PlanePart(Message):
    """Which part of a plane the image of a request is, if the plane is too large for one request.

    The network's windows then lie where they would lie if it looked at the whole plane, so that
    parts meet without seams. The answer holds the probabilities of the core alone.
    """

    shape: tuple[PositiveInt, PositiveInt] = Field(description="Rows and columns of the plane.")
    origin: tuple[NonNegativeInt, NonNegativeInt] = Field(
        description="Row and column of the plane at which the image begins."
    )
    core: tuple[NonNegativeInt, NonNegativeInt, PositiveInt, PositiveInt] = Field(
        description="Top, left, bottom, right of what is asked for, in the plane, the last two "
        "exclusive. The image reaches as far around it as clsclip.blocks.window_halo says."
    )
    passes: tuple[tuple[PartZoom, ...], ...] = Field(
        description="For each word, the zoom of every look at the plane, whose mean counts."
    )

    @model_validator(mode="after")
    def _within(self) -> Self:
        top, left, bottom, right = self.core
        if not (top < bottom <= self.shape[0] and left < right <= self.shape[1]):
            raise ValueError("the core is (top, left, bottom, right) within the plane")
        if not self.passes or not all(self.passes):
            raise ValueError("each word needs at least one zoom")
        return self


class SegmentRequest(SegmentSettings, RegionSettings, AttentionSettings):
    """What ``POST /v1/segment`` asks for, beside the image array."""

    words: tuple[str, ...]
    contrast_limits: tuple[FiniteFloat, FiniteFloat] | None = Field(
        None,
        description="Values that are shown as black and white. None: the range of the dtype for "
        "uint8, else minimum and maximum of the image.",
    )
    drawn: tuple[DrawnBox, ...] = Field(
        (),
        max_length=MAX_DRAWN_BOXES,
        description="Boxes that a person drew on the image, for regions 'auto': every word is "
        "looked for inside them only. They may reach beyond the image. With one word, the person "
        "vouches that they show it.",
    )
    part: PlanePart | None = Field(
        None,
        description="Which part of a larger plane the image is. Its zooms count then; contrast "
        "limits are necessary, and neither regions nor attention can be had.",
    )

    @model_validator(mode="after")
    def _parts_are_plain(self) -> Self:
        if self.part is None:
            return self
        if self.contrast_limits is None:
            raise ValueError("a part of a plane needs contrast limits, the same for all parts")
        if self.regions != "none" or self.drawn:
            raise ValueError("regions cannot be proposed in a part of a plane")
        if self.attention:
            raise ValueError("attention cannot be shown of a part of a plane")
        if len(self.part.passes) != len(self.words):
            raise ValueError(f"{len(self.words)} words have {len(self.part.passes)} lists of zooms")
        return self


def encode_segment_request(image: NDArray[Any], request: SegmentRequest) -> bytes:
    """Bytes of a request; see :func:`decode_segment_request` for the array's format.

    Raises
    ------
    InvalidImageError
        If the array holds anything but booleans, integers or real numbers.
    """
    _require_numbers(image)
    unused = {
        name
        for name in _SENT_IF_USED
        if getattr(request, name) == SegmentRequest.model_fields[name].default
    }
    return encode_npz(request.model_dump_json(exclude=unused), image=image)


def decode_segment_request(body: bytes, max_bytes: int) -> tuple[NDArray[Any], SegmentRequest]:
    """Read the body of ``POST /v1/segment``.

    Parameters
    ----------
    body : bytes
        An ``.npz`` archive with the members ``image`` and ``meta``.
    max_bytes : int
        Most bytes that the arrays may take once unpacked.

    Returns
    -------
    image : ndarray, shape (H, W), (H, W, 3) or (H, W, 4), read-only
        Booleans, integers or real numbers; whether its shape and values can be segmented is for
        the predictor to say.
    request : SegmentRequest
        Its words are those of :func:`clsclip.typed_words.check_words`.

    Raises
    ------
    InvalidRequestError, InvalidImageError, InvalidWordError, RequestTooLargeError
    """
    arrays, meta = decode_npz(body, ("image",), max_bytes)
    _require_numbers(arrays["image"])
    request = read_message(SegmentRequest, meta)
    checked = request.model_copy(update={"words": check_words(request.words)})
    return arrays["image"], checked


_M = TypeVar("_M", bound=BaseModel)


def read_message(model: type[_M], text: str) -> _M:
    """Read the JSON of a message.

    Raises
    ------
    InvalidRequestError
        If it is another; the message names the keys.
    """
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise InvalidRequestError(describe_validation(error)) from error


def describe_validation(error: ValidationError) -> str:
    """One sentence per fault of a pydantic model, naming the key and the value."""
    return " ".join(
        f"'{'.'.join(map(str, fault['loc'])) or 'message'}': {fault['msg']} "
        f"(got {str(fault['input'])[:60]!r})."
        for fault in error.errors()
    )


def _require_numbers(image: NDArray[Any]) -> None:
    if image.dtype.kind not in _NUMBER_KINDS:
        raise InvalidImageError(
            f"The image's values are of type {image.dtype}; "
            "booleans, integers and real numbers can be segmented. Convert it first."
        )


def error_json(code: str, message: str) -> str:
    """JSON of an :class:`ErrorAnswer`."""
    # A file name in the message may hold bytes that are no text; JSON must.
    readable = message.encode(errors="replace").decode()
    return ErrorAnswer(error=ErrorDetail(code=code, message=readable)).model_dump_json()
