"""Settings of the backend and of one segmentation: default, title and help text, once each.

Command-line options (:mod:`clsclip.cli.arguments`), the widget's tooltips and the service all
read them from here. Nothing in this module imports torch.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

DEFAULT_MODEL: Final = "mini"
"""Name of the bundled model."""

DEFAULT_THRESHOLD: Final = 0.5
"""Foreground probability from which a pixel belongs to a word."""

DEFAULT_MIN_AREA: Final = 16
"""Pixels below which a single object is dropped."""

DEFAULT_MIN_CERTAINTY: Final = 0.5
"""Part of the way from the threshold to 1 that an object's mean probability must reach."""

DEFAULT_MIN_OVERLAP: Final = 0.3
"""Intersection over union from which on objects of two planes are one."""

MAX_WORDS: Final = 64
"""Words per request."""

MAX_WORD_LENGTH: Final = 100
"""Characters per word; CLIP's text encoder reads at most 77 tokens."""


class Settings(BaseModel):
    """Base of all settings: frozen, and unknown keys are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


RegionMode = Literal["none", "auto", "detector", "open-vocabulary", "tiles"]
"""Where region proposals come from; see :class:`RegionSettings`."""


LabelFormat = Literal["tiff", "png", "coco", "yolo", "voc"]
"""File formats of labels; "tiff" is always written, for the others are made from it."""


class DeviceSettings(Settings):
    """Where it is computed."""

    device: str = Field(
        "auto",
        title="Device",
        description="auto, cpu, cuda, cuda:N or mps. auto takes the first GPU, else the CPU.",
        min_length=1,
    )


class ThresholdSettings(Settings):
    """From which probability on a pixel is foreground."""

    threshold: float = Field(
        DEFAULT_THRESHOLD,
        title="Threshold",
        description="Foreground probability from which a pixel belongs to a word.",
        gt=0,
        le=1,
    )


class InstanceSettings(Settings):
    """Single objects."""

    instances: bool = Field(
        False,
        title="Single objects",
        description="Tell single objects apart, also where they touch, instead of labelling "
        "pixels of a word.",
    )
    min_area: int = Field(
        DEFAULT_MIN_AREA,
        title="Smallest area",
        description="Pixels; smaller single objects are dropped.",
        ge=1,
    )
    min_certainty: float = Field(
        DEFAULT_MIN_CERTAINTY,
        title="Smallest certainty",
        description="Single objects whose mean probability lies less than this part of the way "
        "from the threshold to 1 are dropped; 0 keeps all.",
        ge=0,
        lt=1,
    )


class LinkSettings(Settings):
    """The same object through the planes of a stack."""

    min_overlap: float = Field(
        DEFAULT_MIN_OVERLAP,
        title="Smallest overlap",
        description="Objects of consecutive planes are one if their common pixels are at least "
        "this part of the pixels that either covers.",
        gt=0,
        le=1,
    )


class SegmentSettings(Settings):
    """How one image is segmented. What a request carries beside the image and its words."""

    model: str = Field(
        DEFAULT_MODEL,
        title="Model",
        description="Name of a model, or the path of a run directory on the backend's machine.",
        min_length=1,
    )
    zoom: float | None = Field(
        None,
        title="Zoom",
        description=(
            "Model pixels per image pixel. Empty: chosen from the size of the objects that a "
            "first look at the whole image finds."
        ),
        gt=0.0,
        le=16.0,
    )
    templates: bool = Field(
        True,
        title="Prompt templates",
        description="Average the text token over the model's prompt templates "
        "('a photo of a {}') instead of using the bare word.",
    )


class LargeImageSettings(Settings):
    """Large images."""

    large_from: int = Field(
        4096 * 4096,
        title="Large from",
        description="Pixels; images with more are labelled block by block, in bounded memory, "
        "into OUTPUT/<stem>.zarr, which napari opens without reading all of it.",
        ge=1,
    )
    chunk: int = Field(
        1024,
        title="Chunk",
        description="Side of the chunks of that zarr in pixels; also the rows that are labelled, "
        "and recorded as done, together.",
        ge=16,
        le=4096,
    )
    level: int = Field(
        0,
        title="Resolution level",
        description="Of OME-Zarr and of TIFF pyramids; 0 is the full resolution.",
        ge=0,
    )


class ChannelSettings(Settings):
    """Channels."""

    channels: str = Field(
        "",
        title="Channels",
        description="Of images with several channels: one to look at (0), or three as red, green "
        "and blue (2,0,1), counted from 0. Empty: all, of images with 1, 3 or 4.",
        exclude_if=lambda channels: not channels,  # a backend of before knows no channels
    )

    @field_validator("channels")
    @classmethod
    def _one_or_three(cls, channels: str) -> str:
        numbers = [number.strip() for number in channels.split(",")] if channels.strip() else []
        if len(numbers) not in (0, 1, 3) or not all(
            number.isascii() and number.isdigit() for number in numbers
        ):
            raise ValueError(
                "expected the number of a channel, counted from 0, or three numbers with commas"
            )
        return ",".join(str(int(number)) for number in numbers)

    @property
    def channel_numbers(self) -> tuple[int, ...]:
        """The numbers: none, one or three."""
        return tuple(map(int, self.channels.split(","))) if self.channels else ()


class FolderSettings(Settings):
    """Which files of folders are labelled, and what is written."""

    pattern: str = Field(
        "*",
        title="Pattern",
        description="Which files of the folders: *.tif, or plate1/*.tif.",
        min_length=1,
    )
    recursive: bool = Field(
        False, title="Folders in folders", description="Whether folders in the folders count, too."
    )
    formats: tuple[LabelFormat, ...] = Field(
        ("tiff",),
        title="Formats",
        description="File formats of the labels, of tiff, png, coco, yolo, voc. tiff is always "
        "written.",
        min_length=1,
    )
    overwrite: bool = Field(
        False,
        title="Overwrite",
        description="Whether other labels in the output folder are replaced. Those that a person "
        "accepted never are.",
    )


class RunSettings(Settings):
    """Running."""

    workers: int = Field(
        1,
        title="Workers",
        description="Processes that label at the same time; each loads the model. They share the "
        "cores, and take several GPUs in turn.",
        ge=1,
    )
    scheduler: str = Field(
        "",
        title="Scheduler",
        description="Address of a Dask cluster that labels instead of this machine, such as "
        "tcp://10.0.0.1:8786. Its workers must see all files by the same paths.",
    )
    fail_fast: bool = Field(
        False, title="Fail fast", description="Stop at the first image that cannot be labelled."
    )


class LargePlaneSettings(Settings):
    """Planes that the napari widget segments block by block."""

    large_from: int = Field(
        2**28,
        title="Large from",
        description="Pixels; planes with more are segmented block by block into a zarr on disk.",
        ge=1,
        le=2**28,
    )
    folder: str = Field(
        "",
        title="Results folder",
        description="Where those zarrs lie. Empty: in the user's data folder.",
    )


class DetectorSettings(Settings):
    """Which detector may propose regions."""

    detector: str = Field(
        "",
        title="Detector",
        description="Detector directory or exported YOLO (.onnx) on the backend's machine; with "
        "regions 'open-vocabulary', folder or hub name of a zero-shot detector of transformers. "
        "Empty: the one that the model brings, if any.",
    )


class RegionSettings(DetectorSettings):
    """Whether and how ClsCLIP+ zooms in on parts of an image."""

    regions: RegionMode = Field(
        "none",
        title="Regions",
        description="Parts of the image to zoom in on. none: look at the whole image. auto: the "
        "first that there is of drawn boxes, a detector that knows the word, an open-vocabulary "
        "detector on this machine, tiles; beside the regions of a detector, it looks at the whole "
        "image too. detector, open-vocabulary, tiles: that one.",
    )


class AttentionSettings(Settings):
    """Whether a segmentation tells more than masks."""

    attention: bool = Field(
        False,
        title="Attention",
        description="Where the [CLS] of the visual encoder looks in its last layer, with its own "
        "[CLS] and with that of each word (Figure 3 of the paper): of the whole image at one look, "
        "or at the zoom that is given.",
    )


class StoreSettings(Settings):
    """Where annotations are kept."""

    store: str = Field(
        "",
        title="Store",
        description="Folder in which accepted corrections are kept. Empty: what "
        "NAPARI_CLSCLIP_STORE names, else in the user's data folder.",
    )
    database: str = Field(
        "",
        title="Database",
        description="SQLAlchemy URL of the database of the store, e.g. "
        "postgresql+psycopg://user@host/name. Empty: what NAPARI_CLSCLIP_DATABASE names, else a "
        "file in its folder.",
    )


class BackendSettings(DeviceSettings, StoreSettings):
    """How a backend process runs."""

    host: str = Field(
        "127.0.0.1",
        title="Host",
        description="Address to listen on. The default accepts connections of this machine only.",
        min_length=1,
    )
    port: int = Field(
        0, title="Port", description="TCP port to listen on; 0 takes a free one.", ge=0, le=65535
    )
    max_request_mb: int = Field(
        1024,
        title="Largest request",
        description="Largest request body in MiB, also after unpacking; larger ones are refused.",
        ge=1,
    )
    queue_size: int = Field(
        8,
        title="Queue size",
        description="Requests that may wait for the device; further ones are told to come back.",
        ge=1,
    )
    allowed_hosts: tuple[str, ...] = Field(
        (),
        title="Allowed hosts",
        description="Further names by which clients may call this backend (the Host header); "
        "127.0.0.1, localhost and the listening address always may.",
    )
    preload: str = Field(
        "",
        title="Preload",
        description="Model to load before the first request, so that it is answered sooner.",
    )
    training_processes: int = Field(
        1,
        title="Training processes",
        description="Processes that train together when a person presses Learn: as many as there "
        "are GPUs for it.",
        ge=1,
    )
    exit_with_parent: bool = Field(
        False,
        title="Exit with parent",
        description="Stop when standard input closes, that is, when the program that started "
        "this backend ends for whatever reason.",
    )
