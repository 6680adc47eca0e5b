"""A server that answers as a backend with trainings would, without training anything.

For states that are hard to provoke: a training that has just begun, one that was interrupted, a
version that was not promoted, a backend that refuses. What a real backend does is tested in
``end_to_end``.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from clsclip.errors import ClsClipError, NotFoundError
from clsclip.wire import Message, ModelInfo, ModelList, error_json
from clsclip.wire_annotations import Annotation, AnnotationList, Details
from clsclip.wire_training import (
    Activation,
    Change,
    CurvePoint,
    Training,
    TrainingList,
    TrainingRequest,
    Version,
    VersionList,
)
from stub_backend import HEALTH, JSON, Reply, Stub

BEGUN = datetime(2026, 11, 24, 13, 0, tzinfo=UTC)
CURVE = tuple(
    CurvePoint(
        step=10 * i,
        seconds=8.0 * i,
        loss=0.9 * 0.75**i + 0.05,
        iou=0.51 * (1 - 0.6**i) if i % 2 == 0 else None,
        old_iou=0.83 - 0.002 * i if i % 2 == 0 else None,
    )
    for i in range(11)
)
CHANGES = (
    Change(word="nucleus", before=0.83, after=0.82, learnt=False),
    Change(word="rosette", before=0.02, after=0.51, learnt=True),
)


def training(name: str = "mini-v2", **changes: Any) -> Training:
    """A training that runs, unless something else is said."""
    about: dict[str, Any] = {
        "name": name, "words": ("rosette",), "model": "mini", "started": BEGUN, "state": "running",
        "doing": "step 40, loss 0.333", "minutes": 1.5, "seconds": 40.0, "part": 0.42,
        "eta_seconds": 52.0, "images": 5, "curve": CURVE[:6],
    }  # fmt: skip
    return Training(**{**about, **changes})


def annotation(created: datetime, *words: str) -> Annotation:
    """Something that was accepted."""
    digest = "0" * 64
    return Annotation(
        id="0" * 32, lineage="0" * 32, version=1, created=created, words=words,
        pixels=(9,) * len(words), image_sha256=digest, labels_sha256=digest, vouched_sha256=None,
        details=Details(),
    )  # fmt: skip


MINI = Version(name="mini", description="The bundled model.")


class TrainingStub(Stub):
    """Keeps trainings, versions and annotations, which a test may change.

    Attributes
    ----------
    refusal
        Raised by whatever is ordered, if it is set.
    ends_at_once
        Whether a training is over as soon as it is cancelled.
    asked
        What was asked of the last training.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trainings: list[Training] = []
        self.versions: list[Version] = [MINI]
        self.active, self.back, self.notice = "mini", "", ""
        self.annotations: list[Annotation] = []
        self.refusal: ClsClipError | None = None
        self.ends_at_once = True
        self.asked: TrainingRequest | None = None
        for method in ("GET", "POST", "PUT", "DELETE"):
            self.replies[method] = self._answering(method)

    def end(self, name: str, *, promoted: bool, reason: str = "") -> None:
        """Let a training end, with a version that is active if it is promoted."""
        (old,) = (each for each in self.trainings if each.name == name)
        self._replace(
            old.model_copy(
                update={"state": "done", "part": 1.0, "curve": CURVE, "changes": CHANGES,
                        "promoted": promoted, "reason": reason}
            )
        )  # fmt: skip
        version = Version(
            name=name, parent=old.model, created=BEGUN, words=old.words, changes=CHANGES,
            promoted=promoted, note=old.note,
        )  # fmt: skip
        self.versions.insert(0, version)
        if promoted:
            self.active, self.back = name, self.active

    def _replace(self, new: Training) -> Training:
        self.trainings = [new if each.name == new.name else each for each in self.trainings]
        return new

    def _answering(self, method: str) -> Any:
        def reply(path: str, body: bytes) -> Reply:
            try:
                if method != "GET" and self.refusal is not None:
                    raise self.refusal
                status, answer = self._answer(method, path.removeprefix("/v1").split("?")[0], body)
            except ClsClipError as error:
                return error.http_status, JSON, error_json(error.code, error.message).encode()
            return status, JSON, answer.model_dump_json().encode()

        return reply

    def _answer(self, method: str, path: str, body: bytes) -> tuple[int, Message]:
        match method, path.strip("/").split("/"):
            case "GET", ["health"]:
                return 200, HEALTH
            case "GET", ["models"]:
                model = ModelInfo(name="mini", description="The bundled model.", available=True)
                return 200, ModelList(models=(model,))
            case "GET", ["annotations"]:
                words: dict[str, int] = {}
                for each in self.annotations:
                    for word in each.words:
                        words[word] = words.get(word, 0) + 1
                return 200, AnnotationList(
                    annotations=tuple(self.annotations), total=len(self.annotations), words=words
                )
            case "GET", ["trainings"]:
                bare = (each.model_copy(update={"curve": ()}) for each in self.trainings)
                return 200, TrainingList(trainings=tuple(bare))
            case "POST", ["trainings"]:
                asked = self.asked = TrainingRequest(**json.loads(body))
                name = f"mini-v{len(self.trainings) + 2}"
                new = training(
                    name, words=asked.words, model=asked.model, minutes=asked.minutes,
                    note=asked.note, curve=(), part=0.0, eta_seconds=None, doing="Reading images",
                )  # fmt: skip
                self.trainings.insert(0, new)
                return 201, new
            case "GET", ["trainings", name]:
                return 200, self._named(name)
            case "POST", ["trainings", name, "resume"]:
                return 200, self._replace(self._named(name).model_copy(update={"state": "running"}))
            case "DELETE", ["trainings", name]:
                if not self.ends_at_once:
                    return 200, self._named(name)
                update = {"state": "cancelled", "reason": "Cancelled by the user."}
                return 200, self._replace(self._named(name).model_copy(update=update))
            case "GET", ["versions"]:
                return 200, self._list()
            case "PUT", ["versions", "active"]:
                name = Activation(**json.loads(body)).name
                if name not in (version.name for version in self.versions):
                    raise NotFoundError(f"There is no version '{name}'.")
                self.active, self.back = name, self.active
                return 200, self._list()
        raise NotFoundError(f"{method} {path}: Not Found.")

    def _named(self, name: str) -> Training:
        for each in self.trainings:
            if each.name == name:
                return each
        raise NotFoundError(f"There is no training '{name}'.")

    def _list(self) -> VersionList:
        return VersionList(
            versions=tuple(self.versions), active=self.active, back=self.back, notice=self.notice
        )
