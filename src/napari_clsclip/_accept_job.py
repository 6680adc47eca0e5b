"""One acceptance on its way to the backend's annotation store."""

from __future__ import annotations

import threading
from typing import Final

from clsclip.errors import CancelledError
from clsclip.wire_annotations import Annotation, AnnotationList
from napari_clsclip._acceptance import Acceptance
from napari_clsclip._supervisor import BackendSupervisor


class StoreJob:
    """Keeps a plane, if one is given, and asks what is kept; the Qt thread polls it.

    Parameters
    ----------
    supervisor : BackendSupervisor
    acceptance : Acceptance, optional
        What to keep; its image is read in the thread.
    replaces : str
        Id of the version that was corrected further; empty: a new annotation.

    Attributes
    ----------
    acceptance
        The parameter.
    """

    def __init__(
        self,
        supervisor: BackendSupervisor,
        acceptance: Acceptance | None = None,
        replaces: str = "",
    ) -> None:
        self.acceptance: Final = acceptance
        self._supervisor = supervisor
        self._replaces = replaces
        self._cancelled = threading.Event()
        self._kept: Annotation | None = None
        self._outcome: AnnotationList | Exception = CancelledError("Not started.")
        self._thread = threading.Thread(target=self._run, name="clsclip-accept", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def cancel(self) -> None:
        """Do not wait for the backend any longer. What has been sent is kept."""
        self._cancelled.set()

    @property
    def done(self) -> bool:
        """Whether :meth:`result` has something to say."""
        return not self._thread.is_alive()

    def result(self) -> tuple[Annotation | None, AnnotationList]:
        """Return what was kept, and the latest of what the store holds now; once :attr:`done`.

        Raises
        ------
        ClsClipError
        """
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._kept, self._outcome

    def _run(self) -> None:
        try:
            correction = None if self.acceptance is None else self.acceptance.correction()
            with self._supervisor.asking(self._cancelled.is_set) as client:
                if correction is not None:
                    self._kept = client.accept(correction, self._replaces)
                self._outcome = client.annotations()
        except Exception as error:
            self._outcome = error
