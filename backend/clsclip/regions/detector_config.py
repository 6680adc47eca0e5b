"""``detector.json``: the words, the network and the training of a detector. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from clsclip.config import Settings
from clsclip.errors import CheckpointError
from clsclip.model.config import DETECTOR_FILE, DETECTOR_FOLDER
from clsclip.wire import describe_validation

_From = Annotated[int, Field(ge=-64, le=64)]
_Argument = (
    bool | None | Annotated[int, Field(ge=0, le=1024)] | Annotated[float, Field(ge=0, le=1)]
    | Literal["nearest", "nc"]
)  # fmt: skip


class Layer(Settings):
    """A row of an Ultralytics architecture.

    Ultralytics looks modules up by name and evaluates some texts as Python, so a file may name
    only what is listed here.
    """

    source: _From | tuple[_From, ...] = Field(description="Layers whose output enters; -1: before.")
    module: Literal["Conv", "C3k2", "SPPF", "nn.Upsample", "Concat", "Detect"]
    arguments: tuple[_Argument, ...]


class Architecture(Settings):
    """Layers of a YOLO.

    ``reg_max`` is the number of bins of a distance between an anchor and a side of its box; a box
    reaches at most ``reg_max - 1`` strides of its level from its anchor.
    """

    width_multiple: float = Field(1.0, gt=0, le=4)
    reg_max: int = Field(8, ge=2, le=32)
    layers: tuple[Layer, ...] = Field(min_length=2, max_length=64)

    def to_yaml(self, classes: int) -> dict[str, Any]:
        """The dictionary from which Ultralytics builds a network for so many classes."""
        rows = [
            [list(s) if isinstance(s := layer.source, tuple) else s, 1, layer.module,
             list(layer.arguments)]
            for layer in self.layers
        ]  # fmt: skip
        return {
            "nc": classes, "depth_multiple": 1.0, "width_multiple": self.width_multiple,
            "reg_max": self.reg_max, "backbone": rows[:-1], "head": rows[-1:],
        }  # fmt: skip


class DetectorConfig(Settings):
    """Content of ``detector.json``."""

    format: Literal[1] = 1
    kind: Literal["yolo"] = "yolo"
    words: tuple[str, ...] = Field(min_length=1, description="Class words, in the order of scores.")
    image_size: int = Field(ge=32, le=4096, description="Longer side of an image, in pixels.")
    architecture: Architecture
    weights_sha256: str = Field(description="Of detector.safetensors.")
    training: dict[str, Any] = Field(default_factory=dict, description="What trained it.")


def read_detector_config(folder: Path) -> DetectorConfig:
    """Read and check a detector directory's ``detector.json``.

    Raises
    ------
    CheckpointError
    """
    file = folder / DETECTOR_FILE
    try:
        return DetectorConfig.model_validate_json(file.read_bytes())
    except OSError as error:
        raise CheckpointError(
            f"'{folder}' is not a detector directory: {DETECTOR_FILE} cannot be read ({error}). "
            "Give the folder that 'napari-clsclip-train detect' wrote."
        ) from error
    except ValidationError as error:
        raise CheckpointError(
            f"'{file}' is not the description of a detector: {describe_validation(error)}"
        ) from error


def detector_folder(path: Path) -> Path:
    """The detector directory that a folder is, or holds: a run of ``detect``, or a model."""
    inner = path / DETECTOR_FOLDER
    return inner if (inner / DETECTOR_FILE).is_file() else path


def small_architecture(width: float = 1.0) -> Architecture:
    """A YOLO11 of about 1.2 million weights at 84 classes.

    Against YOLO11n: fewer channels, no attention block, and fewer bins per side of a box.

    Parameters
    ----------
    width : float
        Factor of all numbers of channels.
    """
    rows: list[tuple[int | tuple[int, ...], str, tuple[bool | int | float | str | None, ...]]] = [
        (-1, "Conv", (16, 3, 2)),  # 0: stride 2
        (-1, "Conv", (32, 3, 2)),  # 1: stride 4
        (-1, "C3k2", (48, False, 0.25)),
        (-1, "Conv", (48, 3, 2)),  # 3: stride 8
        (-1, "C3k2", (88, False, 0.25)),
        (-1, "Conv", (88, 3, 2)),  # 5: stride 16
        (-1, "C3k2", (144, False)),
        (-1, "Conv", (144, 3, 2)),  # 7: stride 32
        (-1, "C3k2", (176, False)),
        (-1, "SPPF", (176, 5)),  # 9
        (-1, "nn.Upsample", (None, 2, "nearest")),
        ((-1, 6), "Concat", (1,)),
        (-1, "C3k2", (96, False)),  # 12
        (-1, "nn.Upsample", (None, 2, "nearest")),
        ((-1, 4), "Concat", (1,)),
        (-1, "C3k2", (64, False)),  # 15: stride 8, out
        (-1, "Conv", (64, 3, 2)),
        ((-1, 12), "Concat", (1,)),
        (-1, "C3k2", (96, False)),  # 18: stride 16, out
        (-1, "Conv", (96, 3, 2)),
        ((-1, 9), "Concat", (1,)),
        (-1, "C3k2", (176, False)),  # 21: stride 32, out
        ((15, 18, 21), "Detect", ("nc",)),
    ]
    return Architecture.model_validate(
        {
            "width_multiple": width,
            "layers": [{"source": s, "module": m, "arguments": a} for s, m, a in rows],
        }
    )
