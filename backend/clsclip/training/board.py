"""What TensorBoard shows of a run: its figures, and masks of a few views as they become better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from clsclip.errors import FileError, InvalidConfigError
from clsclip.model.clsclip import ClsClip
from clsclip.model.device import fast_dtype
from clsclip.predict.regions import ANY_OBJECT
from clsclip.training.batches import Sampler

VIEWS: Final = 4
"""Views that are shown."""

PICTURES: Final = 20
"""Times in a run that their masks are."""

_TRIES: Final = 20
"""Batches that are searched for views in which a word is to be seen."""


class Board:
    """Where figures go that nobody asked to see."""

    def report(self, step: int, part: float, figures: Mapping[str, float]) -> None:
        """Show the figures of a report.

        Parameters
        ----------
        step : int
            Optimizer steps taken.
        part : float, 0 to 1
            How much of the run is over.
        figures : mapping of str to float
        """

    def close(self) -> None:
        """Nothing more is to be shown."""


@dataclass(frozen=True)
class FixedView:
    """A view of a training image, and a word that it shows.

    Attributes
    ----------
    image : Tensor of float32, shape (3, S, S)
        RGB in [0, 1].
    word : str
    mask : Tensor of bool, shape (S, S)
    """

    image: Tensor
    word: str
    mask: Tensor


def fixed_views(sampler: Sampler) -> tuple[FixedView, ...]:
    """The first views of a sampler that show a word with its mask; at most :data:`VIEWS`."""
    found: list[FixedView] = []
    for _ in range(_TRIES):
        batch = sampler.batch()
        pairs = len(batch.words) // len(batch.images)
        for index, image in enumerate(batch.images):
            asked = range(index * pairs, (index + 1) * pairs)
            shown = [k for k in asked if batch.masks[k].any() and batch.words[k] != ANY_OBJECT]
            if shown:
                found.append(FixedView(image, batch.words[shown[-1]], batch.masks[shown[-1]]))
        if len(found) >= VIEWS:
            break
    return tuple(found[:VIEWS])


def event_writer() -> Any:
    """PyTorch's ``SummaryWriter``.

    Raises
    ------
    InvalidConfigError
        If TensorBoard is not installed.
    """
    try:
        return import_module("torch.utils.tensorboard").SummaryWriter
    except ImportError as error:
        raise InvalidConfigError(
            "--tensorboard needs the package of that name: python -m pip install "
            f"'napari-clsclip[tensorboard]', or leave the option out ({error})."
        ) from error


class TensorBoard(Board):
    """Writes event files for TensorBoard; to be closed.

    Parameters
    ----------
    folder : Path
    step : int
        Optimizer steps that are taken. What was written of later ones, before a crash, is dropped.
    model : ClsClip
        In training.
    views : sequence of FixedView

    Raises
    ------
    InvalidConfigError
        If TensorBoard is not installed.
    FileError
        If the folder cannot be written.
    """

    def __init__(
        self, folder: Path, step: int, model: ClsClip, views: tuple[FixedView, ...]
    ) -> None:
        writer = event_writer()
        try:
            self._writer = writer(str(folder), purge_step=step + 1 if step else None)
        except OSError as error:
            raise FileError(f"'{folder}' cannot be written ({error}).") from error
        self._model, self._views = model, views
        self._shown = -1.0

    def report(self, step: int, part: float, figures: Mapping[str, float]) -> None:
        """Write the figures and, :data:`PICTURES` times in a run, the views' masks."""
        for name, value in figures.items():
            kind = "learning rate/factor" if name == "rate" else f"loss/{name}"
            self._writer.add_scalar(kind, value, step)
        if part - self._shown >= 1 / PICTURES or part >= 1:
            self._shown = part
            for number, (view, probability) in enumerate(
                zip(self._views, self._probabilities(), strict=True)
            ):
                planes = (view.image, view.mask.float().expand(3, -1, -1),
                          probability.expand(3, -1, -1))  # fmt: skip
                name = f"image, truth, probability/{number} {view.word}"
                self._writer.add_image(name, torch.cat(planes, dim=2), step)
        self._writer.flush()

    @torch.no_grad()
    def _probabilities(self) -> list[Tensor]:
        """Foreground probabilities of the views as float32 on the CPU, each of shape (S, S)."""
        device = next(self._model.decoder.parameters()).device
        dtype = fast_dtype(device)
        found = []
        for view in self._views:
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                text = self._model.text_cls([view.word])
                logits = self._model(view.image[None].to(device), text)
            found.append(logits[0].float().sigmoid().cpu())
        return found

    def close(self) -> None:
        """Write what is left and end."""
        self._writer.close()
