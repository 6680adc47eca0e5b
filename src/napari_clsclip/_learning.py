"""How learning stands in a backend."""

from __future__ import annotations

from dataclasses import dataclass

from clsclip.errors import ClsClipError, NotFoundError
from clsclip.wire_training import Training, VersionList
from napari_clsclip._client import Client


@dataclass(frozen=True)
class Learning:
    """How learning stands in a backend.

    Attributes
    ----------
    trainings : tuple of Training
        The newest first, without their curves.
    shown : Training or None
        With its curve: the one that runs, else the newest.
    versions : VersionList
    """

    trainings: tuple[Training, ...]
    shown: Training | None
    versions: VersionList

    @property
    def running(self) -> bool:
        """Whether a training runs."""
        return self.shown is not None and self.shown.state == "running"


def learning_of(client: Client, known: Learning | None = None) -> Learning:
    """Ask a backend how learning stands; outside the Qt thread.

    Parameters
    ----------
    client : Client
    known : Learning, optional
        What was answered before; the curve of a training that has ended is not asked for again.

    Raises
    ------
    ClsClipError
    """
    try:
        trainings = client.trainings().trainings
    except NotFoundError as error:
        raise ClsClipError(
            "The backend is older than this plugin and cannot learn. Install the same version "
            "of napari-clsclip on its machine."
        ) from error
    running = (training for training in trainings if training.state == "running")
    shown = next(running, trainings[0] if trainings else None)
    if shown is not None:
        before = None if known is None else known.shown
        if shown.state != "running" and before is not None and _same(before, shown):
            shown = before
        else:
            shown = client.training(shown.name)
    return Learning(trainings, shown, client.versions())


def _same(before: Training, now: Training) -> bool:
    """Whether nothing has happened to a training since its curve was read."""
    return before.model_copy(update={"curve": ()}) == now.model_copy(update={"curve": ()})
