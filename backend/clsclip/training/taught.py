"""What a model was taught before: the lessons in its recipe, and their images if still at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from clsclip.config import Settings
from clsclip.errors import CheckpointError, ClsClipError
from clsclip.model.config import ModelConfig
from clsclip.training.corrections import Correction, read_corrections
from clsclip.training.examples import Example
from clsclip.wire import describe_validation

TAUGHT: Final = "taught"
"""Key of the recipe in ``config.json`` that lists the lessons of a model, the first one first."""


class Taught(Settings):
    """One lesson: images with label images, as the finetune command takes them."""

    images: str
    labels: str
    word: str
    ignore: int | None

    def absolute(self) -> Taught:
        """The same with paths that hold in any working directory."""
        images, labels = (str(Path(p).expanduser().absolute()) for p in (self.images, self.labels))
        return self.model_copy(update={"images": images, "labels": labels})


def earlier_lessons(config: ModelConfig) -> tuple[Taught, ...]:
    """The lessons of a model.

    Raises
    ------
    CheckpointError
        If its recipe cannot be read.
    """
    try:
        return tuple(Taught.model_validate(each) for each in config.training.get(TAUGHT, ()))
    except (ValidationError, TypeError) as error:
        detail = describe_validation(error) if isinstance(error, ValidationError) else error
        raise CheckpointError(f"The lessons in the model's config.json: {detail}") from error


def read_earlier(
    lessons: Sequence[Taught], learnt: Sequence[str], tell: Callable[[str], None]
) -> tuple[Correction, ...]:
    """Corrections of earlier lessons of the words that are learnt now, to be repeated.

    The images of a lesson may have been moved or removed since: then what it taught is repeated
    by the older model's answers alone, and ``tell`` is told so.

    Parameters
    ----------
    lessons : sequence of Taught
        Without the one that is learnt now.
    learnt : sequence of str
        Canonical words.
    tell : callable

    Returns
    -------
    tuple of Correction
        Each with masks of those of the words that its lesson taught.
    """
    found: list[Correction] = []
    for lesson in lessons:
        try:
            words, corrections = read_corrections(
                Path(lesson.images), Path(lesson.labels), lesson.word, lesson.ignore
            )
        except ClsClipError as error:
            tell(f"The earlier lesson '{lesson.word}' cannot be repeated: {error.message}")
            continue
        again = tuple(word for word in words if word in learnt)
        found += [_only(each, again) for each in corrections if again]
    return tuple(found)


def _only(correction: Correction, words: Sequence[str]) -> Correction:
    """A correction with the masks of some of its words."""
    example = correction.example
    masks = {word: example.masks[word] for word in words}
    return Correction(
        correction.name,
        Example(example.image, masks, example.present & frozenset(words), example.ignore),
    )
