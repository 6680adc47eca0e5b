"""Writes unsaved corrections to disk in a thread, a moment after the last stroke of the brush.

Nothing here imports Qt or napari.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_clsclip._kept import Kept
from napari_clsclip._unsaved_files import KeptFolder, KeptSession, Tile

QUIET_SECONDS: Final = 1.0
"""How long nothing must have been painted until it is written."""

LONGEST_SECONDS: Final = 3.0
"""How long painting may go on until it is written all the same."""

RETRY_SECONDS: Final = 10.0
"""After how long a write that failed is tried again."""

_SLICE_SECONDS: Final = 0.3
_CLOSE_SECONDS: Final = 20.0


@dataclass(eq=False)
class Entry:
    """What is still to be written of one label layer.

    Attributes
    ----------
    folder : KeptFolder or None
        None as long as nothing was written.
    fingerprint : callable, optional
        Computes the fingerprint of the image; called once, in the thread of the journal.
    """

    folder: KeptFolder | None = None
    fingerprint: Callable[[], str] | None = None
    _labels: Any = None
    _about: Kept | None = None
    _features: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    _fingerprinted: str = ""
    _urgent: set[Tile] = field(default_factory=set)
    _later: set[Tile] = field(default_factory=set)
    _first: float = 0.0
    _last: float = 0.0


class Journal:
    """Writes entries in a daemon thread of its own. All methods return at once, from any thread.

    Parameters
    ----------
    root : Path
        Folder of all sessions.
    tell : callable
        Takes a message, in the thread of the journal: that nothing can be written, once, until
        something was written again.
    quiet, longest, retry : float
        See ``QUIET_SECONDS`` and the others.
    """

    def __init__(
        self,
        root: Path,
        tell: Callable[[str], None],
        *,
        quiet: float = QUIET_SECONDS,
        longest: float = LONGEST_SECONDS,
        retry: float = RETRY_SECONDS,
    ) -> None:
        self.root: Final = root
        self._tell = tell
        self._quiet, self._longest, self._retry = quiet, longest, retry
        self._changed = threading.Condition()
        self._pending: set[Entry] = set()
        self._removals: list[KeptFolder] = []
        self._sessions: list[KeptSession] = []
        self._own: KeptSession | None = None
        self._failed = self._closing = self._busy = self._urged = False
        self._retry_at = 0.0
        self._thread: threading.Thread | None = None

    def mark(
        self,
        entry: Entry,
        labels: Any,
        tiles: Iterable[Tile],
        *,
        later: Iterable[Tile] = (),
        about: Kept | None = None,
        features: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        """Note that tiles may have changed.

        Parameters
        ----------
        entry : Entry
        labels : array of int
            The array of the layer. It is read in the thread, while it may be painted on; whoever
            paints marks again afterwards.
        tiles : iterable of Tile
            Those to be written first.
        later : iterable of Tile
            Those to be written once nothing else is to be done.
        about, features : optional
            What else is kept, if that may have changed. An entry begins with an ``about``.
        """
        now = time.monotonic()
        with self._changed:
            if self._closing:
                return
            entry._labels = labels
            entry._urgent.update(tiles)
            entry._later.update(later)
            entry._about = about or entry._about
            entry._features = entry._features if features is None else features
            if entry not in self._pending:
                entry._first = now
                self._pending.add(entry)
            entry._last = now
            self._start()

    def discard(self, entry: Entry) -> None:
        """Remove what is kept of a layer: it is safe elsewhere, or not wanted."""
        with self._changed:
            self._pending.discard(entry)
            entry._urgent.clear()
            entry._later.clear()
            entry._labels = None
            if entry.folder is not None:
                self._removals.append(entry.folder)
                entry.folder = None
                self._start()

    def remove(self, folder: KeptFolder) -> None:
        """Remove what an earlier napari kept of a layer."""
        self.discard(Entry(folder))

    def hold(self, session: KeptSession) -> None:
        """Let go of a locked session of an earlier napari with :meth:`close`, not before."""
        with self._changed:
            if not self._closing:
                self._sessions.append(session)
                return
        session.release()

    def flush(self, seconds: float) -> bool:
        """Write everything now; for tests, and before something is read back.

        Returns
        -------
        bool
            Whether all is written; False after ``seconds``, or if it cannot be written.
        """
        with self._changed:
            self._urged = True
            self._changed.notify_all()
            done = self._changed.wait_for(
                lambda: not (self._pending or self._removals or self._busy) or self._failed, seconds
            )
            self._urged = False
            return done and not self._failed

    def close(self, *, wait: bool = True) -> None:
        """Write what is left, and let go of the sessions.

        Parameters
        ----------
        wait : bool
            Whether to return only afterwards. Else the end of the process waits.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            thread = self._thread
        if thread is None:
            self._release()
        elif wait:
            thread.join(_CLOSE_SECONDS)
            atexit.unregister(self.close)

    def _start(self) -> None:
        """Begin, or go on at once; the caller holds the lock."""
        if self._thread is None and not self._closing:
            self._thread = threading.Thread(target=self._run, name="clsclip-keep", daemon=True)
            self._thread.start()
            atexit.register(self.close)
        self._changed.notify_all()

    def _run(self) -> None:
        while self._step():
            pass
        self._release()

    def _step(self) -> bool:
        """Wait for something to do, and do it; returns False once nothing is left to do."""
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            while not (work := self._due()) and not self._removals:
                if self._closing:
                    return False
                self._changed.wait(self._seconds_left())
            removals, self._removals = self._removals, []
            self._busy = True
        for folder in removals:
            try:
                folder.remove()
            except OSError as error:
                self._tell(f"Corrections could not be removed from {folder.path}: {error}.")
        try:
            for entry in work:
                self._write(entry)
        except Exception as error:  # whatever a disk or a lazy array raises: tried again later
            self._fail(error)
            return not self._closing
        with self._changed:
            self._failed = self._failed and not work
        return True

    def _due(self) -> list[Entry]:
        now = time.monotonic()
        if self._closing or self._urged:
            return list(self._pending)
        if now < self._retry_at:
            return []
        return [entry for entry in self._pending if self._due_at(entry) <= now]

    def _due_at(self, entry: Entry) -> float:
        return min(entry._last + self._quiet, entry._first + self._longest)

    def _seconds_left(self) -> float | None:
        if not self._pending:
            return None
        due = max(min(map(self._due_at, self._pending)), self._retry_at)
        return max(0.001, due - time.monotonic())

    def _write(self, entry: Entry) -> None:
        """Write what is urgent, then for a while what is not."""
        with self._changed:
            if entry not in self._pending or entry._about is None:
                return
            if entry.folder is None:
                entry.folder = self._session().folder()
            folder, labels = entry.folder, entry._labels
            urgent, entry._urgent = entry._urgent, set()
            about, features = entry._about, entry._features
        later: set[Tile] = set()
        try:
            self._write_tiles(folder, labels, urgent)
            if entry.fingerprint is not None:
                entry._fingerprinted = _fingerprint(entry.fingerprint)
                entry.fingerprint = None
            if about.image is not None and entry._fingerprinted:
                image = about.image.model_copy(update={"fingerprint": entry._fingerprinted})
                about = about.model_copy(update={"image": image})
            folder.write_about(about, features)
            later = self._take_later(entry)
            until = time.monotonic() + _SLICE_SECONDS
            while later and time.monotonic() < until:
                self._write_tiles(folder, labels, {next(iter(later))})
                later.remove(next(iter(later)))
        except BaseException:
            with self._changed:
                if entry.folder is folder:
                    entry._urgent |= urgent
                    entry._later |= later
            raise
        with self._changed:
            if entry.folder is folder:
                entry._later |= later
                entry._first = time.monotonic()
                if not (entry._urgent or entry._later):
                    self._pending.discard(entry)
                    entry._labels = None
                elif not entry._urgent:
                    entry._last = entry._first - self._quiet  # go on at once

    def _take_later(self, entry: Entry) -> set[Tile]:
        with self._changed:
            later, entry._later = entry._later, set()
            return later

    def _write_tiles(self, folder: KeptFolder, labels: Any, tiles: set[Tile]) -> None:
        for tile in sorted(tiles):
            folder.write_tile(tile, np.asarray(labels[tile.part]))

    def _session(self) -> KeptSession:
        if self._own is None:
            session = KeptSession.new(self.root)
            session.lock()
            self._own = session
        return self._own

    def _fail(self, error: Exception) -> None:
        self._retry_at = time.monotonic() + self._retry
        with self._changed:
            first, self._failed = not self._failed, True
            self._changed.notify_all()
        if first and not self._closing:
            self._tell(
                f"Unsaved corrections cannot be kept in {self.root} ({error}). Painting goes on, "
                "but save your labels yourself (File > Save) until there is room."
            )

    def _release(self) -> None:
        with self._changed:
            sessions = [*self._sessions, *([] if self._own is None else [self._own])]
            self._sessions, self._own = [], None
        for session in sessions:
            try:
                session.release()
            except OSError as error:
                self._tell(f"Unsaved corrections are kept, but {session.path} is locked: {error}.")


def _fingerprint(compute: Callable[[], str]) -> str:
    """Fingerprint of an image; empty if it cannot be read, which is no reason to keep nothing."""
    try:
        return compute()
    except Exception:
        return ""
