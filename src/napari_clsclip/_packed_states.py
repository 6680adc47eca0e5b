"""What the history of a layer remembers of planes, compressed: it may hold a hundred steps."""

from __future__ import annotations

import threading
import zlib
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_clsclip._predicted_objects import PredictedObjects
from napari_clsclip._predicted_plane import PlaneState
from napari_clsclip._user_pixels import UserPixels

_SMALL: Final = 2**16
_NOTHING: Final = np.empty((0, 0), np.int32)


class PackedArray:
    """An array of labels or flags, compressed a moment later.

    Parameters
    ----------
    array : ndarray
        It must not change any more.
    """

    def __init__(self, array: NDArray[Any]) -> None:
        self._shape, self._dtype = array.shape, array.dtype
        self._array: NDArray[Any] | None = array
        self._bytes = b""

    def pack(self) -> None:
        """Compress; for one thread, while others may call :meth:`get`."""
        array = self._array
        if array is not None and array.nbytes > _SMALL:
            self._bytes = zlib.compress(np.ascontiguousarray(array).data, 1)
            self._array = None

    def get(self) -> NDArray[Any]:
        """Return an equal array; the same one if it is not yet packed."""
        array = self._array
        if array is not None:
            return array
        return np.frombuffer(bytearray(zlib.decompress(self._bytes)), self._dtype).reshape(
            self._shape
        )


@dataclass(frozen=True)
class _PackedUser:
    changed: PackedArray | None
    before: PackedArray | None

    @classmethod
    def of(cls, user: UserPixels) -> _PackedUser:
        return cls(_packed(user.changed), _packed(user.before))

    def get(self) -> UserPixels:
        return UserPixels(_unpacked(self.changed), _unpacked(self.before))


class PackedPlane:
    """A state of a :class:`~napari_clsclip._predicted_plane.PredictedPlane`."""

    def __init__(self, state: PlaneState) -> None:
        self._threshold = state.threshold
        self._user = _PackedUser.of(state.user)
        self._written, self._ceded = _packed(state.written), _packed(state.ceded)

    @property
    def arrays(self) -> list[PackedArray]:
        """What can be packed."""
        known = (self._user.changed, self._user.before, self._written, self._ceded)
        return [array for array in known if array is not None]

    def get(self) -> PlaneState:
        """Return an equal state."""
        written, ceded = _unpacked(self._written), _unpacked(self._ceded)
        return PlaneState(self._threshold, self._user.get(), written, ceded)


class PackedObjects:
    """The objects of a plane; the probabilities are shared, not copied."""

    def __init__(self, objects: PredictedObjects) -> None:
        self._bare = replace(objects, written=_NOTHING, last=_NOTHING, user=UserPixels())
        self._user = _PackedUser.of(objects.user)
        self._written, self._last = PackedArray(objects.written), PackedArray(objects.last)

    @property
    def arrays(self) -> list[PackedArray]:
        """What can be packed."""
        known = (self._user.changed, self._user.before, self._written, self._last)
        return [array for array in known if array is not None]

    def get(self) -> PredictedObjects:
        """Return equal objects."""
        return replace(
            self._bare, written=self._written.get(), last=self._last.get(), user=self._user.get()
        )


def pack_in_thread(arrays: list[PackedArray]) -> None:
    """Compress arrays, one after the other; returns at once."""

    def run() -> None:
        for array in arrays:
            array.pack()

    threading.Thread(target=run, name="clsclip-pack", daemon=True).start()


def _packed(array: NDArray[Any] | None) -> PackedArray | None:
    return None if array is None else PackedArray(array)


def _unpacked(array: PackedArray | None) -> NDArray[Any] | None:
    return None if array is None else array.get()
