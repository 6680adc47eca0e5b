"""Models of the Hugging Face hub that have a name here, and are fetched once, when asked for.

They go where huggingface_hub keeps everything (``HF_HUB_CACHE``), so that what another program has
fetched is here, too. Nothing here loads torch, and only :func:`download` asks the network.
"""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final

from filelock import FileLock, Timeout

from clsclip.errors import (
    BusyError,
    CancelledError,
    FileError,
    ModelUnavailableError,
    UnknownModelError,
)
from clsclip.model.hub_files import HubFile, fetch
from clsclip.wire_models import megabytes

Progress = Callable[[int, int], None]
"""Called with bytes that are here, and bytes of the whole model."""

_LIST_SECONDS: Final = 30.0
_DIGEST: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class HubModel:
    """A model of the hub.

    Attributes
    ----------
    repo : str
        Its repository.
    revisions : tuple of str
        Commits or branches to take it from: the first one that has all files.
    files : tuple of str
        The files that are needed; no others are fetched.
    size : int
        Bytes of these files, about.
    licence : str
        SPDX identifier of the licence of the weights.
    description : str
        One line for people.
    """

    repo: str
    revisions: tuple[str, ...]
    files: tuple[str, ...]
    size: int
    licence: str
    description: str


HUB_MODELS: Final[Mapping[str, HubModel]] = MappingProxyType({
    "clipseg": HubModel(
        repo="CIDAS/clipseg-rd64-refined",
        # the commit that brought the weights as safetensors; the branch, should it be gone
        revisions=("325a839908143a34b409ae6f2910fa015ea390e6", "main"),
        files=(
            "config.json", "preprocessor_config.json", "vocab.json", "merges.txt",
            "tokenizer_config.json", "special_tokens_map.json", "model.safetensors",
        ),
        size=604_600_000,
        licence="Apache-2.0",
        description="CLIPSeg (Lüddecke and Ecker, CVPR 2022): photographs, any word.",
    ),
})  # fmt: skip
"""Models of the hub by the name that they have here."""


def hub_model(name: str) -> HubModel:
    """The model of the hub that has a name here.

    Raises
    ------
    UnknownModelError
    """
    if name not in HUB_MODELS:
        raise UnknownModelError(
            f"'{name}' is no model that is fetched from the Hugging Face hub; "
            f"there is {', '.join(HUB_MODELS)}."
        )
    return HUB_MODELS[name]


def not_downloaded(model: HubModel) -> str:
    """Why a model of the hub cannot be used yet: its size, licence and origin."""
    return (
        f"Not on this machine yet: {megabytes(model.size)}, {model.licence}, from "
        f"huggingface.co/{model.repo}."
    )


def cached_folder(name: str) -> Path | None:
    """Folder with all files of a model of the hub, if they are on this machine. No network.

    Raises
    ------
    UnknownModelError
    """
    model = hub_model(name)
    for revision in model.revisions:
        found = [_cached(model, file, revision) for file in model.files]
        if all(found):
            return Path(str(found[0])).parent
    return None


def download(
    name: str,
    progress: Progress | None = None,
    cancelled: threading.Event | None = None,
) -> Path:
    """Fetch what this machine lacks of a model of the hub; what is there is kept.

    Parameters
    ----------
    name : str
    progress : callable, optional
        Called with the bytes that are here and those of the whole model, again and again.
    cancelled : threading.Event, optional
        Ends the download when it is set. It goes on from there the next time.

    Returns
    -------
    Path
        Folder with its files, each compared with the hash that the hub has of it.

    Raises
    ------
    UnknownModelError
    ModelUnavailableError
        If the hub cannot be reached, does not have it, or gave something else.
    FileError
        If it cannot be written.
    BusyError
        If another process is fetching it.
    CancelledError
    """
    model, cancelled = hub_model(name), cancelled or threading.Event()
    folder = cached_folder(name)
    if folder is not None:
        return folder
    with _alone(name, model):
        try:
            revision, commit, files = _listing(model)
            _fetch_all(model, revision, commit, files, progress or _nobody, cancelled)
        except ModelUnavailableError as error:
            raise ModelUnavailableError(
                f"The model '{name}' cannot be fetched. {error.message} {_way_out(model)}"
            ) from error
        except OSError as error:
            raise _cannot_write(error) from error
    folder = cached_folder(name)
    if folder is None:
        raise FileError(
            f"The model '{name}' was fetched, but is not in '{_cache()}'. Something else removes "
            "it; name another folder in HF_HUB_CACHE."
        )
    return folder


def _fetch_all(
    model: HubModel,
    revision: str,
    commit: str,
    files: tuple[HubFile, ...],
    progress: Progress,
    cancelled: threading.Event,
) -> None:
    """Bring all files into the cache, and the smallest first: what is wrong shows at once."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    total, before = sum(file.size for file in files), 0
    blobs = _storage(model) / "blobs"
    _check_room(blobs, total - sum(_here(model, file, commit) for file in files))
    for file in sorted(files, key=lambda file: file.size):
        # where huggingface_hub has the content of a file; it then only links to it
        blob = blobs / file.digest
        if _cached(model, file.name, commit) is None and not blob.is_file():
            draft = _draft(blob)
            fetch(
                file,
                hf_hub_url(model.repo, file.name, revision=commit),
                draft,
                headers=build_hf_headers(library_name="napari-clsclip"),
                progress=partial(_report, progress, before, total),
                wait=cancelled.wait,
            )
            draft.replace(blob)
        if cancelled.is_set():
            raise CancelledError("The download was cancelled.")
        _link(model, file.name, revision, blob)
        before += file.size
        progress(before, total)


def _listing(model: HubModel) -> tuple[str, str, tuple[HubFile, ...]]:
    """Ask the hub: which revision there is, its commit, and its files that are needed."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import RevisionNotFoundError

    for revision in model.revisions:
        try:
            info = HfApi().model_info(
                model.repo, revision=revision, files_metadata=True, timeout=_LIST_SECONDS
            )
        except RevisionNotFoundError:
            continue
        except Exception as error:  # the library passes on those of its libraries
            raise ModelUnavailableError(
                f"{constants.ENDPOINT} does not say what '{model.repo}' holds ({_fault(error)})."
            ) from error
        listed = {
            sibling.rfilename: HubFile(
                sibling.rfilename,
                sibling.size or 0,
                sibling.lfs.sha256 if sibling.lfs is not None else sibling.blob_id or "",
            )
            for sibling in info.siblings or ()
        }
        files = tuple(listed[name] for name in model.files if name in listed)
        if (
            info.sha
            and len(files) == len(model.files)
            and all(file.size and _DIGEST.fullmatch(file.digest) for file in files)
        ):
            return revision, info.sha, files
    raise ModelUnavailableError(
        f"{constants.ENDPOINT} has no revision of '{model.repo}' with {', '.join(model.files)}."
    )


def _link(model: HubModel, file: str, revision: str, blob: Path) -> None:
    """Let huggingface_hub put what is in the cache where it looks for it."""
    from huggingface_hub import hf_hub_download

    try:
        pointer = Path(hf_hub_download(model.repo, file, revision=revision))
    except Exception as error:  # the library passes on those of its libraries
        raise ModelUnavailableError(
            f"'{file}' came, but huggingface_hub could not put it into '{_cache()}' "
            f"({_fault(error)})."
        ) from error
    if blob.is_file() and not pointer.is_symlink():
        blob.unlink()  # where links are not allowed, it was copied


@contextmanager
def _alone(name: str, model: HubModel) -> Iterator[None]:
    """While no other process fetches the same model."""
    folder = _cache() / ".locks" / _storage(model).name
    lock = FileLock(folder / "napari-clsclip.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (_storage(model) / "blobs").mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BusyError(
            f"Another process is fetching the model '{name}'. Wait until it has done so."
        ) from error
    except OSError as error:
        raise _cannot_write(error) from error
    try:
        yield
    finally:
        lock.release()


def _cannot_write(error: OSError) -> FileError:
    return FileError(
        f"Models cannot be written to '{_cache()}' ({error}). Make room or give rights, or name "
        "another folder in HF_HUB_CACHE; what has come is kept."
    )


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise FileError(
            f"'{folder}' has room for {megabytes(free)}, and {megabytes(needed)} are needed. Make "
            "room, or name another folder in HF_HUB_CACHE."
        )


def _here(model: HubModel, file: HubFile, commit: str) -> int:
    """How many bytes of a file are on this machine."""
    blob = _storage(model) / "blobs" / file.digest
    if blob.is_file() or _cached(model, file.name, commit) is not None:
        return file.size
    draft = _draft(blob)
    return min(draft.stat().st_size, file.size) if draft.is_file() else 0


def _draft(blob: Path) -> Path:
    return blob.with_name(f"{blob.name}.incomplete")


def _cached(model: HubModel, file: str, revision: str) -> str | None:
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(model.repo, file, revision=revision)
    except OSError:  # a cache that cannot be read has nothing; a download says what is wrong
        return None
    return found if isinstance(found, str) else None


def _cache() -> Path:
    """Where huggingface_hub keeps models."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _storage(model: HubModel) -> Path:
    from huggingface_hub.file_download import repo_folder_name

    return _cache() / repo_folder_name(repo_id=model.repo, repo_type="model")


def _way_out(model: HubModel) -> str:
    from huggingface_hub import constants, get_token

    storage = _storage(model)
    token = " If HF_TOKEN is set, it may be out of date: unset it." if get_token() else ""
    offline = "Unset HF_HUB_OFFLINE, which forbids downloads" if constants.HF_HUB_OFFLINE else (
        "Connect this machine to the network, or name a mirror of the hub in HF_ENDPOINT"
    )  # fmt: skip
    return (
        f"{offline}; or copy '{storage.name}' from the hub cache of another machine to "
        f"'{storage.parent}'.{token}"
    )


def _fault(error: Exception) -> str:
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        return f"status {error.response.status_code}"
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _report(progress: Progress, before: int, total: int, have: int) -> None:
    progress(before + have, total)


def _nobody(_done: int, _total: int) -> None:
    """Where nobody follows."""
