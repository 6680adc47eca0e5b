"""Tells when layers were saved to files, which napari itself tells nobody."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import napari.plugins.io
from napari.layers import Layer

Listener = Callable[[Sequence[Layer]], None]

_listeners: list[weakref.WeakMethod[Listener]] = []


def on_save(listener: Listener) -> None:
    """Call a bound method with the layers that were written, whenever some were.

    ``Layer.save``, ``LayerList.save`` and with it *File > Save* all look up
    ``napari.plugins.io.save_layers`` at the moment of saving, so that function is wrapped here,
    once. Should a later napari save in another way, nothing is told: corrections then count as
    unsaved and are offered once too often, but none is lost.

    Parameters
    ----------
    listener : bound method
        Referred to weakly.
    """
    _listeners.append(weakref.WeakMethod(listener))
    if not hasattr(napari.plugins.io.save_layers, "__wrapped__"):
        napari.plugins.io.save_layers = _telling(napari.plugins.io.save_layers)


def _telling(save_layers: Callable[..., list[str]]) -> Callable[..., list[str]]:
    @functools.wraps(save_layers)
    def save(path: Any, layers: list[Layer], **options: Any) -> list[str]:
        written = save_layers(path, layers, **options)
        if written:
            for reference in tuple(_listeners):
                listener = reference()
                if listener is None:
                    _listeners.remove(reference)
                else:
                    listener(layers)
        return written

    return save
