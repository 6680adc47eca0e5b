"""``napari-clsclip-train download``: fetch a model, with a bar."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import Field
from tqdm import tqdm

from clsclip.config import Settings
from clsclip.errors import CancelledError
from clsclip.model.hub_models import HUB_MODELS, cached_folder, download, hub_model
from clsclip.wire_models import megabytes


class DownloadSettings(Settings):
    """Which model is fetched."""

    model: str = Field(
        next(iter(HUB_MODELS)),
        title="Model",
        description=f"Name of a model that the hub has: {', '.join(HUB_MODELS)}.",
    )


def download_model(settings: DownloadSettings) -> Path:
    """Fetch a model into the hub's cache; the folder, if it is there already.

    Raises
    ------
    CancelledError
        After Ctrl-C; what has come is kept.
    ClsClipError
        As :func:`clsclip.model.hub_models.download`.
    """
    name, model = settings.model, hub_model(settings.model)
    folder = cached_folder(name)
    if folder is not None:
        return folder
    sys.stderr.write(
        f"'{name}' is {model.repo} of the Hugging Face hub: {megabytes(model.size)}, "
        f"{model.licence}\n"
    )
    try:
        with tqdm(desc=name, unit="B", unit_scale=True, total=model.size, mininterval=0.5) as bar:

            def follow(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            return download(name, follow)
    except KeyboardInterrupt as error:
        raise CancelledError("Interrupted. The same command goes on from here.") from error
