"""Which labels of an output folder a person has accepted, asked again for every image."""

from __future__ import annotations

from pathlib import Path

from clsclip.batch.reviews import Reviews


class AcceptedKeys:
    """Keys of images whose labels a person has accepted, as they are at the moment.

    The journal is read again only if it has changed. Safe while another process writes it.

    Parameters
    ----------
    output : Path
    """

    def __init__(self, output: Path) -> None:
        self._reviews = Reviews(output)
        self._read_at: tuple[int, int] | None = None
        self._keys: frozenset[str] = frozenset()

    def __contains__(self, key: str) -> bool:
        """Whether an image is accepted now.

        Raises
        ------
        FileError
            If the reviews are damaged.
        """
        try:
            found = self._reviews.file.stat()
        except FileNotFoundError:
            return False
        if self._read_at != (found.st_mtime_ns, found.st_size):
            self._keys = frozenset(self._reviews.accepted())
            self._read_at = (found.st_mtime_ns, found.st_size)
        return key in self._keys
