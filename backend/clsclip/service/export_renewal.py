"""Exports about all images, like coco.json, are written again after somebody has corrected labels.

That takes long where there are many images, and so it happens in a thread, once for corrections
that follow each other closely. What is left when the backend ends, the next one does. Nothing here
loads torch.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from clsclip.batch.reviews import Reviews
from clsclip.config import LabelFormat
from clsclip.errors import ClsClipError

QUIET_SECONDS: Final = 2.0
"""How long nothing must have been corrected."""

_log = logging.getLogger(__name__)


class ExportRenewal:
    """Renews exports of output folders, one after the other."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._asked: dict[Path, Callable[[], None]] = {}
        self._thread: threading.Thread | None = None
        self._closed = False
        self._number = 0

    def ask(
        self,
        reviews: Reviews,
        images: Callable[[], Mapping[str, Path]],
        words: tuple[str, ...],
        formats: tuple[LabelFormat, ...],
    ) -> None:
        """Renew the exports of a folder soon.

        Parameters
        ----------
        reviews : Reviews
            Of the folder.
        images : callable
            Gives the labelled images by key.
        words, formats : tuple of str
            See :meth:`clsclip.batch.reviews.Reviews.accept`.
        """
        with self._changed:
            self._asked[reviews.file] = partial(_renew, reviews, images, words, formats)
            self._number += 1
            self._changed.notify_all()
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._work, name="exports", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Begin nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                number = self._number
                self._changed.wait(QUIET_SECONDS)
                if self._closed:
                    return
                if self._number > number:
                    continue
                if not self._asked:
                    self._thread = None
                    return
                renew = self._asked.pop(next(iter(self._asked)))
            try:
                renew()
            except ClsClipError as error:  # the exports stay marked as stale
                _log.warning("Exports were not renewed: %s", error.message)
            except Exception:
                _log.exception("Exports were not renewed")


def _renew(
    reviews: Reviews,
    images: Callable[[], Mapping[str, Path]],
    words: tuple[str, ...],
    formats: tuple[LabelFormat, ...],
) -> None:
    reviews.renew_exports(images(), words=words, formats=formats)
