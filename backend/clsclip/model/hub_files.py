"""One file of the Hugging Face hub: fetched, resumed, verified (ours).

huggingface_hub itself begins a file anew after an interruption and checks its size alone. Here
what has come stays, and the whole file is compared with the hash that the hub has of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from clsclip.errors import CancelledError, ModelUnavailableError
from clsclip.model.files import flush

RETRIES: Final = 5
"""How often a connection that broke is tried again before anything more has come."""

RETRY_SECONDS: Final = 1.0
TIMEOUT: Final = httpx.Timeout(30.0, connect=10.0)

_SHA256_DIGITS: Final = 64


@dataclass(frozen=True)
class HubFile:
    """A file as the hub describes it.

    Attributes
    ----------
    name : str
        Within the repository.
    size : int
        In bytes.
    digest : str
        SHA-256 of a large file (Git LFS), Git's SHA-1 of any other; also its name in the cache.
    """

    name: str
    size: int
    digest: str


def fetch(
    file: HubFile,
    url: str,
    draft: Path,
    *,
    headers: Mapping[str, str],
    progress: Callable[[int], None],
    wait: Callable[[float], bool],
) -> None:
    """Complete and verify a draft of a file; what it holds already is not fetched again.

    Parameters
    ----------
    file : HubFile
    url : str
        Where the file is; redirects are followed.
    draft : Path
        Holds the file afterwards. After an error it holds what has come, unless that was wrong.
    headers : mapping
        Of the requests.
    progress : callable
        Called with the number of bytes of the file that are here, again and again.
    wait : callable
        Waits for so many seconds; true at once if the download is to end.

    Raises
    ------
    CancelledError
        If ``wait`` said so.
    ModelUnavailableError
        If the server does not give the file, or another one than it should be.
    OSError
        If the draft cannot be written.
    """
    retries = RETRIES
    while (have := _size(draft)) < file.size:
        try:
            _append(url, draft, file.size, headers, progress, wait)
            fault = f"it ended after {_size(draft):,} of {file.size:,} bytes"
        except httpx.RequestError as error:
            fault = f"{type(error).__name__}: {error}"
        if _size(draft) > have:
            retries = RETRIES
        elif retries == 0:
            raise ModelUnavailableError(f"'{file.name}' did not come: {fault}.")
        else:
            retries -= 1
        if _size(draft) < file.size and wait(RETRY_SECONDS):
            raise _cancelled()
    progress(file.size)
    flush(draft)
    if _size(draft) != file.size or _digest(draft, file) != file.digest:
        draft.unlink()
        raise ModelUnavailableError(
            f"What came as '{file.name}' is not what the hub has: its {_kind(file)} is another. "
            "It was removed. Try again; if that does not help, something between the hub and this "
            "machine, such as a proxy, changes it."
        )


def _append(
    url: str,
    draft: Path,
    size: int,
    headers: Mapping[str, str],
    progress: Callable[[int], None],
    wait: Callable[[float], bool],
) -> None:
    """Fetch what a draft lacks, until it is complete or the connection ends."""
    have = _size(draft)
    progress(have)
    # compressed, parts of a file could not be asked for
    asked = {**headers, "Accept-Encoding": "identity"}
    if have:
        asked["Range"] = f"bytes={have}-"
    with httpx.stream("GET", url, headers=asked, timeout=TIMEOUT, follow_redirects=True) as answer:
        if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            draft.unlink()
            return
        if answer.is_server_error or answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
            raise httpx.NetworkError(f"status {answer.status_code}")  # may pass
        if not answer.is_success:
            raise ModelUnavailableError(f"{answer.url.host} answers with {answer.status_code}.")
        partial = answer.status_code == httpx.codes.PARTIAL_CONTENT
        have = have if partial else 0  # a server that knows no ranges sends all
        with draft.open("ab" if partial else "wb") as stream:
            for chunk in answer.iter_bytes():
                if wait(0.0):
                    raise _cancelled()
                stream.write(chunk)
                have += len(chunk)
                progress(min(have, size))
                if have > size:
                    return


def _cancelled() -> CancelledError:
    return CancelledError("The download was cancelled; it goes on from here when asked for again.")


def _size(draft: Path) -> int:
    try:
        return draft.stat().st_size
    except FileNotFoundError:
        return 0


def _kind(file: HubFile) -> str:
    return "SHA-256" if len(file.digest) == _SHA256_DIGITS else "Git hash"


def _digest(draft: Path, file: HubFile) -> str:
    with draft.open("rb") as stream:
        if len(file.digest) == _SHA256_DIGITS:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        digest = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
        digest.update(stream.read())
        return digest.hexdigest()
