"""Keys of the viewer that belong to the review, as long as something is open for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from napari.components import ViewerModel

ACCEPT_KEY: Final = "A"
NEXT_KEY: Final = "N"
PREVIOUS_KEY: Final = "Shift-N"
UNCERTAIN_KEY: Final = "U"


class ReviewKeys:
    """Binds keys, and gives them back as they were.

    Parameters
    ----------
    viewer : ViewerModel
    actions : mapping of str to callable
        What each key does.
    """

    def __init__(self, viewer: ViewerModel, actions: Mapping[str, Callable[[], object]]) -> None:
        self._viewer = viewer
        self._actions = actions
        self._before: dict[Any, Any] | None = None

    def hold(self, held: bool) -> None:
        """Bind the keys, or give them back."""
        keymap = self._viewer.keymap
        if held and self._before is None:
            self._before = dict(keymap)
            for key, action in self._actions.items():
                self._viewer.bind_key(key, _handler(action), overwrite=True)
        elif not held and self._before is not None:
            for key in self._actions:
                self._viewer.bind_key(key, None, overwrite=True)
            for key, bound in self._before.items():
                keymap.setdefault(key, bound)
            self._before = None


def _handler(action: Callable[[], object]) -> Callable[[Any], None]:
    def handle(viewer: Any) -> None:
        action()

    return handle
