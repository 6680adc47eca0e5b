"""What plugin and backend say to each other about what to correct next.

=======  ===================================  ========================================
method   route                                answer
=======  ===================================  ========================================
POST     ``/v1/gain?request_id=ID``           :class:`ImageGain`
GET      ``/v1/annotations/embeddings``       :class:`Embeddings`
=======  ===================================  ========================================

The request of the first is that of ``/v1/segment``, see :mod:`clsclip.wire`, and so are its
progress and its cancellation. Nothing here imports torch.
"""

from __future__ import annotations

from typing import Final

from pydantic import Field, FiniteFloat

from clsclip.wire import Message

NEWEST: Final = 200
"""Accepted images, the newest first, that are compared with."""


class ImageGain(Message):
    """What a model thinks of its own answer about an image."""

    words: tuple[str, ...]
    expected: tuple[FiniteFloat | None, ...] = Field(
        description="Expected IoU of each word, see clsclip.ranking; null: found nowhere."
    )
    embedding: tuple[FiniteFloat, ...] = Field(
        description="Of the image, of unit length; near ones look alike."
    )
    accepted: bool = Field(description="Whether the annotation store has this image already.")


class Embeddings(Message):
    """Embeddings of the newest accepted images, at most ``NEWEST``."""

    embeddings: tuple[tuple[FiniteFloat, ...], ...]
