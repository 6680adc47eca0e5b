"""What a model was taught before: the lessons in its recipe, and their images if still at hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import Field, ValidationError

from clsclip.config import Settings
from clsclip.errors import (
    CheckpointError,
    ClsClipError,
    FileError,
    InvalidConfigError,
    NotFoundError,
)
from clsclip.model.config import ModelConfig
from clsclip.store.schema import without_password
from clsclip.store.store import AnnotationStore, database_url, store_folder
from clsclip.training.accepted import accepted_words, read_accepted
from clsclip.training.corrections import Correction, read_corrections
from clsclip.training.examples import Example
from clsclip.training.finetune_settings import FinetuneSettings
from clsclip.training.holdout import held_for_good, split
from clsclip.wire import describe_validation

TAUGHT: Final = "taught"
"""Key of the recipe in ``config.json`` that lists the lessons of a model, the first one first."""


class Taught(Settings):
    """One lesson: images with label images, or words of the annotation store.

    Of a lesson of the store, whatever is accepted for its words when it is repeated belongs to it.
    """

    images: str = ""
    labels: str = ""
    word: str = ""
    ignore: int | None = None
    store: str = Field("", description="Folder of the annotation store; empty: folders.")
    database: str = Field("", description="Its URL without a password; empty: in that folder.")

    @classmethod
    def of(cls, settings: FinetuneSettings) -> Taught:
        """The lesson that some settings ask for, with paths that hold in any working directory.

        Raises
        ------
        InvalidConfigError
            If they ask for folders and the store, or for neither.
        """
        if not settings.folders:
            words = accepted_words(settings.words)
            return cls(
                word=",".join(words),
                store=str(store_folder(settings.store).absolute()),
                database=without_password(database_url(settings.database)),
            )
        if settings.words or settings.store or settings.database:
            raise InvalidConfigError(
                "--images, --labels and --word are of folders, --store, --database and --words of "
                "the annotation store. Give one or the other; 'napari-clsclip-train import' adds "
                "folders to the store."
            )
        missing = [name for name in ("images", "labels") if not getattr(settings, name)]
        if missing:
            raise InvalidConfigError(
                f"--{missing[0]} is missing: give a folder of images and one of label images of "
                "the same names; or --words for what is in the annotation store."
            )
        images, labels = (
            str(Path(folder).expanduser().absolute())
            for folder in (settings.images, settings.labels)
        )
        return cls(images=images, labels=labels, word=settings.word, ignore=settings.ignore)

    def read(self, tell: Callable[[str], None], database: str = "") -> Material:
        """What there is to learn from.

        Parameters
        ----------
        tell : callable
            Takes a line for people about what is left out.
        database : str
            URL of the store's database with its password, where it is known.

        Raises
        ------
        FileError, InvalidConfigError, NotFoundError, StoreError
            See :func:`clsclip.training.corrections.read_corrections` and
            :func:`clsclip.training.accepted.read_accepted`.
        """
        if not self.store:
            return Material(
                *read_corrections(Path(self.images), Path(self.labels), self.word, self.ignore)
            )
        folder = Path(self.store)
        if not folder.is_dir():
            raise NotFoundError(
                f"There is no annotation store in '{folder}'. If it was moved, put it back, or "
                "name its folder (--store on the command line)."
            )
        words = accepted_words(self.word)
        with AnnotationStore(folder, database or self.database) as store:
            accepted = read_accepted(store, words, tell)
        return Material(words, accepted.corrections, accepted.images)


@dataclass(frozen=True)
class Material:
    """What there is to learn from.

    Attributes
    ----------
    words : tuple of str
        Canonical.
    corrections : tuple of Correction
    joined : mapping of str to frozenset of str, or None
        Of a store: images in the order in which they joined, and which words they show.
    """

    words: tuple[str, ...]
    corrections: tuple[Correction, ...]
    joined: Mapping[str, frozenset[str]] | None = None

    def split(
        self, holdout: float, seed: int
    ) -> tuple[tuple[Correction, ...], tuple[Correction, ...]]:
        """Corrections to learn from, and those that are held out.

        Parameters
        ----------
        holdout, seed
            See :func:`clsclip.training.holdout.split`.

        Raises
        ------
        FileError
            If all images that show a word and can be read are held out.
        """
        if self.joined is None:
            return split(self.corrections, holdout, seed)
        held = held_for_good(self.joined, holdout, seed)
        learnt = tuple(each for each in self.corrections if each.name not in held)
        for word in self.words:
            if not any(word in correction.shows for correction in learnt):
                raise FileError(
                    f"The images that show '{word}' and can be read are all held out, so there is "
                    "nothing to learn it from. Accept one more image that shows it."
                )
        return learnt, tuple(each for each in self.corrections if each.name in held)


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
    lessons: Sequence[Taught],
    now: Taught,
    learnt: Sequence[str],
    tell: Callable[[str], None],
    database: str = "",
) -> tuple[Correction, ...]:
    """Corrections of earlier lessons of the words that are learnt now, to be repeated.

    The images of a lesson may have been moved or removed since: then what it taught is repeated
    by the older model's answers alone, and ``tell`` is told so.

    Parameters
    ----------
    lessons : sequence of Taught
    now : Taught
        The lesson that is learnt now.
    learnt : sequence of str
        Its words.
    tell : callable
        Takes a line for people.
    database : str
        URL of the database of ``now`` with its password; it serves earlier lessons of that store.

    Returns
    -------
    tuple of Correction
        Each with masks of those of the words that its lesson taught.
    """
    found: list[Correction] = []
    for lesson in lessons:
        known = (lesson.store, lesson.database) == (now.store, now.database)
        if now.store and known:
            continue  # all that the store has of these words is learnt now
        try:
            material = lesson.read(tell, database if known else "")
        except ClsClipError as error:
            tell(f"The earlier lesson '{lesson.word}' cannot be repeated: {error.message}")
            continue
        again = tuple(word for word in material.words if word in learnt)
        found += [_only(each, again) for each in material.corrections if again]
    return tuple(found)


def _only(correction: Correction, words: Sequence[str]) -> Correction:
    """A correction with the masks of some of its words."""
    example, asked = correction.example, correction.asked(words)
    masks = {word: example.masks[word] for word in asked}
    return Correction(
        correction.name,
        Example(example.image, masks, example.present & frozenset(asked), example.ignore),
    )
