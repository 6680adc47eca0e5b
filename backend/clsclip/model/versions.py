"""Versions of a model: run directories beside each other, and which of them is in use.

``VERSIONS/mini-v2`` is the run directory of the training that made that version. Once it has ended
with a model, its folder is a model by its name, and nothing in it changes any more. A name is given
once, whatever becomes of the folder. ``VERSIONS/active.json`` says which version is in use; damage
to it, or to a version, leaves the bundled model.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import platformdirs
from filelock import FileLock, Timeout
from pydantic import Field

from clsclip.config import DEFAULT_MODEL, Settings
from clsclip.errors import BusyError, CheckpointError, ClsClipError, FileError
from clsclip.model.config import CONFIG_FILE
from clsclip.model.files import read_json, write_atomically
from clsclip.model.report import REPORT_FILE, read_report
from clsclip.model.run_state import RunState, read_state

VERSIONS_VARIABLE: Final = "NAPARI_CLSCLIP_VERSIONS"
"""Environment variable with the folder of the versions."""

ACTIVE_FILE: Final = "active.json"
LOCK_FILE: Final = "active.lock"

LOCK_SECONDS: Final = 10.0
"""How long to wait for another process that changes which version is active."""

_NUMBERED: Final = re.compile(r"(.+)-v(\d+)")
_LONGEST_ROOT: Final = 56

_log = logging.getLogger(__name__)


def versions_folder() -> Path:
    """Folder of the versions: what ``VERSIONS_VARIABLE`` says, else one of this user."""
    named = os.environ.get(VERSIONS_VARIABLE, "").strip()
    if named:
        return Path(named).expanduser()
    return platformdirs.user_data_path("napari-clsclip") / "versions"


class Active(Settings):
    """Content of ``active.json``.

    Attributes
    ----------
    history : tuple of str
        Versions that became active, one after the other; the last one is.
    judged : tuple of str
        Versions whose end has been taken note of: promoted ones became active then, once.
    numbers : dict of str to int
        Highest number that was given to a version of each model.
    """

    history: tuple[str, ...] = ()
    judged: tuple[str, ...] = ()
    numbers: dict[str, int] = Field(default_factory=dict)


def finished_versions() -> dict[str, Path]:
    """Run directories of versions by name: those whose training has ended with a model."""
    return {folder.name: folder for folder in run_folders() if finished(folder) is not None}


def run_folders() -> list[Path]:
    """All run directories beside each other, finished or not, by name."""
    root = versions_folder()
    try:
        return sorted(each for each in root.iterdir() if each.is_dir() and each.name[0] != ".")
    except FileNotFoundError:
        return []
    except OSError as error:
        _log.warning("The versions in '%s' cannot be listed (%s)", root, error)
        return []


def finished(folder: Path) -> RunState | None:
    """How a training ended, if it ended with a model, so that its folder changes no more."""
    try:
        state = read_state(folder)
    except ClsClipError as error:
        _log.warning("%s", error.message)
        return None
    ended = state is not None and state.state in ("done", "cancelled")
    complete = all((folder / name).is_file() for name in (CONFIG_FILE, REPORT_FILE))
    return state if ended and complete else None


def new_version(model: str, taken: Collection[str] = ()) -> Path:
    """Make the folder of the next version of a model.

    Parameters
    ----------
    model : str
        Name or path of the model to go on from: of ``mini`` and of ``mini-v4`` the next version is
        ``mini-v5``.
    taken : collection of str
        Further names that are not free.

    Returns
    -------
    Path
        An empty folder.

    Raises
    ------
    FileError
        If it cannot be made.
    BusyError
        If another process holds the records for long.
    """
    root = _root(model)
    with _changing() as folder:
        known, _ = _read(folder)
        numbers = [known.numbers.get(root, 1)]
        for name in (*taken, *(each.name for each in run_folders())):
            match = _NUMBERED.fullmatch(name)
            if match and match[1] == root:
                numbers.append(int(match[2]))
        number = max(numbers) + 1
        _write(folder, known.model_copy(update={"numbers": {**known.numbers, root: number}}))
        version = folder / f"{root}-v{number}"
        version.mkdir()
        return version


def _root(model: str) -> str:
    """Name of the model that a version descends from, or of another one, as part of a name."""
    name = Path(model).name
    match = _NUMBERED.fullmatch(name)
    if match and (versions_folder() / name).is_dir():
        name = match[1]
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip("._-")[:_LONGEST_ROOT] or DEFAULT_MODEL


def settle() -> None:
    """Make promoted versions active whose training has ended since this was last asked.

    Raises
    ------
    FileError, BusyError
    """
    known, _ = _read(versions_folder())
    ended = {
        folder: state
        for folder in run_folders()
        if folder.name not in known.judged and (state := finished(folder)) is not None
    }
    if not ended:
        return
    with _changing() as root:
        known, _ = _read(root)  # another process may have done it meanwhile
        history, judged = list(known.history), list(known.judged)
        for folder in sorted(ended, key=lambda each: ended[each].time):
            if folder.name in judged:
                continue
            judged.append(folder.name)
            if _promoted(folder) and folder.name not in history[-1:]:
                history.append(folder.name)
                _log.info("The new version '%s' is better, and active from now on", folder.name)
        changes = {"history": tuple(history), "judged": tuple(judged)}
        _write(root, known.model_copy(update=changes))


def _promoted(folder: Path) -> bool:
    try:
        report = read_report(folder)
    except ClsClipError as error:
        _log.warning("%s", error.message)
        return False
    return report is not None and report.promoted


def activate(name: str) -> None:
    """Use a model from now on unless another one is named.

    Going back to the version that was active before takes back the last step, so that one can go
    back further.

    Parameters
    ----------
    name : str
        Of a model that can be used; see :func:`clsclip.model.registry.list_models`.

    Raises
    ------
    FileError, BusyError
    """
    with _changing() as root:
        known, _ = _read(root)
        history = known.history
        if name == (history[-1] if history else DEFAULT_MODEL):
            return
        before = history[-2] if len(history) > 1 else DEFAULT_MODEL
        back = history[:-1] if history and name == before else (*history, name)
        _write(root, known.model_copy(update={"history": back}))


class ActiveVersion(Settings):
    """Which model is used unless another one is named.

    Attributes
    ----------
    name : str
    back : str
        What was active before; empty: nothing.
    notice : str
        What a person should know about damage; empty: nothing.
    """

    name: str
    back: str
    notice: str


def active_version(available: frozenset[str]) -> ActiveVersion:
    """Which model is used unless another one is named.

    Parameters
    ----------
    available : frozenset of str
        Names of the models that can be used; others that were active are passed over.
    """
    known, notice = _read(versions_folder())
    history = (DEFAULT_MODEL, *known.history)
    usable = [name for name in history if name in available or name == DEFAULT_MODEL]
    names = [name for k, name in enumerate(usable) if k == 0 or name != usable[k - 1]]
    if names[-1] != history[-1]:
        gone = f"The version '{history[-1]}' that was active cannot be used; '{names[-1]}' is used."
        notice = f"{notice} {gone}".strip()
    return ActiveVersion(name=names[-1], back=names[-2] if len(names) > 1 else "", notice=notice)


@contextmanager
def _changing() -> Iterator[Path]:
    """The folder, while no other process changes what is active."""
    root = versions_folder()
    lock = FileLock(root / LOCK_FILE)
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=LOCK_SECONDS)
        try:
            yield root
        finally:
            lock.release()
    except Timeout as error:
        raise BusyError(
            f"Another process changes the versions in '{root}'. Try again in a moment."
        ) from error
    except OSError as error:
        raise FileError(
            f"The versions in '{root}' cannot be changed ({error}). Make room or give rights, or "
            f"name another folder in {VERSIONS_VARIABLE}."
        ) from error


def _read(root: Path) -> tuple[Active, str]:
    """What is recorded, and what a person should know where it cannot be read."""
    try:
        return read_json(root / ACTIVE_FILE, Active) or Active(), ""
    except CheckpointError as error:
        notice = f"{error.message}. It is not known which version was active; choose one."
        _log.warning("%s", notice)
        everything = tuple(folder.name for folder in run_folders() if finished(folder))
        return Active(judged=everything), notice


def _write(root: Path, active: Active) -> None:
    write_atomically(root / ACTIVE_FILE, (active.model_dump_json(indent=2) + "\n").encode())
