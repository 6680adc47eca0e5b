"""Label images one after the other in this process, while others are read and written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial

from clsclip.batch.inputs import InputImage
from clsclip.batch.labelling import Found, ImageOutput, find
from clsclip.batch.large import BlockProgress
from clsclip.batch.manifest import ManifestRow
from clsclip.batch.overlap import WriteBehind, read_ahead
from clsclip.batch.reading import Piece, read_pieces
from clsclip.batch.task import LabelTask
from clsclip.batch.watch import Watch
from clsclip.predict.predictor import Predictor


class Here:
    """Labels images in their order, in this process.

    Parameters
    ----------
    predictor : Predictor
        Used by the thread that calls :meth:`label`, only.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def label(
        self, images: Sequence[InputImage], task: LabelTask, *,
        record: Callable[[ManifestRow], None], watch: Watch, fail_fast: bool,
    ) -> None:  # fmt: skip
        """See :class:`clsclip.batch.watch.Labeller`."""
        output = ImageOutput(task)
        failed = False

        def write(found: Found) -> None:
            nonlocal failed
            row = output.add(found)
            if row is not None:
                record(row)
                failed = failed or row.status == "failed"

        def look(piece: Piece) -> Found:
            def progress(blocks: BlockProgress) -> None:
                watch.blocks(piece.image, blocks)
                watch.checkpoint()

            return find(self._predictor, piece, task, progress=progress)

        unusable: InputImage | None = None
        with (
            closing(read_ahead(read_pieces(images, task), lambda piece: piece.bytes)) as pieces,
            WriteBehind() as behind,
        ):
            for piece in pieces:
                if piece.image == unusable:
                    continue  # another plane of it
                watch.checkpoint()
                if failed and fail_fast:
                    return
                found = look(piece)
                if found.error:
                    unusable = piece.image
                behind.add(partial(write, found))
                if found.error and fail_fast:
                    return
