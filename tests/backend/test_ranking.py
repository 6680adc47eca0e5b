"""What to correct next: expected IoU, order, reasons, and the routes that tell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clsclip import Predictor
from clsclip.ranking import Candidate, expected_iou, rank
from clsclip.store.store import AnnotationStore
from clsclip.wire import SegmentRequest, encode_segment_request
from clsclip.wire_annotations import Correction
from clsclip.wire_ranking import Embeddings, ImageGain


def levels(*parts: tuple[float, float]) -> np.ndarray:
    """An image of probabilities: (probability, part of the pixels)."""
    return np.concatenate(
        [np.full(round(10_000 * part), round(255 * value), np.uint8) for value, part in parts]
    ).reshape(1, -1)


def test_expected_iou_is_the_iou_that_the_probabilities_foretell(rng: np.random.Generator) -> None:
    assert expected_iou(levels((0.0, 0.9), (1.0, 0.1))) == 1
    assert expected_iou(levels((0.0, 1.0))) is None
    assert expected_iou(levels((0.04, 1.0))) is None  # next to nothing, everywhere
    assert expected_iou(levels((0.0, 0.9), (0.6, 0.1))) == pytest.approx(0.6, abs=0.01)
    assert expected_iou(levels((0.0, 0.8), (0.4, 0.1), (1.0, 0.1))) == pytest.approx(1 / 1.4, 0.01)
    assert expected_iou(levels((0.0, 0.9), (0.6, 0.1)), threshold=0.7) == 0

    probability = rng.choice([0.15, 0.5, 0.7, 0.95], size=(300, 300))
    truth = rng.random((300, 300)) < probability
    mask = probability >= 0.5
    iou = (truth & mask).sum() / (truth | mask).sum()
    expected = expected_iou(np.round(probability * 255).astype(np.uint8))
    assert expected == pytest.approx(iou, abs=0.01)


def candidate(key: str, angle: float, *expected: float | None) -> Candidate[str]:
    """Looks are directions in the plane, so that near angles look alike."""
    return Candidate(key, expected, np.array([np.cos(angle), np.sin(angle)]))


def test_doubtful_and_unlike_images_come_first() -> None:
    images = [
        candidate("sure", 0.0, 0.95), candidate("doubtful", 0.02, 0.3),
        candidate("its twin", 0.02, 0.32), candidate("unlike", 1.2, 0.5),
        candidate("nothing found", 2.4, None),
    ]  # fmt: skip
    ranked = rank(images, np.zeros((0, 2)))
    order = [each.candidate.key for each in ranked]
    assert order[0] == "doubtful"
    assert order.index("its twin") > order.index("unlike")
    assert order.index("its twin") > order.index("nothing found")
    assert [r.gain for r in ranked] == pytest.approx(sorted((r.gain for r in ranked), reverse=True))
    known = rank(images, np.array([[np.cos(0.02), np.sin(0.02)]]))
    assert known[0].candidate.key in {"unlike", "nothing found"}
    assert known[-1].gain == pytest.approx(0, abs=1e-3)
    assert rank([], np.zeros((0, 2))) == []
    assert [r.candidate.key for r in rank(images[:1], np.zeros((0, 2)))] == ["sure"]

    two = rank([candidate("a", 0, 0.4, None)], np.zeros((0, 2)))[0]
    assert two.reason(("cell", "vessel")) == (
        "The model: expected IoU of cell 0.40; found no vessel. It looks unlike what came before."
    )


def test_images_that_look_alike_have_near_embeddings(tiny_model: Path) -> None:
    predictor = Predictor(str(tiny_model), device="cpu")
    rows, columns = np.indices((60, 90))
    stripes = np.where(rows // 6 % 2, 220, 20).astype(np.uint8)
    dots = np.where(np.hypot(rows % 15 - 7, columns % 15 - 7) < 3, 220, 20).astype(np.uint8)
    first, shifted, other = map(predictor.embedding, (stripes, np.roll(stripes, 12, 1), dots))
    assert np.linalg.norm(first) == pytest.approx(1, abs=1e-5)
    assert first @ shifted > first @ other
    wide = predictor.embedding(stripes.astype(np.uint16) * 100, (0.0, 25_500.0))
    assert first @ wide > 0.999


def test_the_service_tells_what_images_would_teach(
    serve: Callable[..., object], tiny_model: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    store_folder = tmp_path / "store"
    image, new = rng.integers(0, 255, (2, 40, 50), dtype=np.uint8)
    with AnnotationStore(store_folder) as store:
        correction = Correction(image, (image > 200).astype(np.uint16), ("cell",))
        annotation = store.add(correction)
        store.add(Correction(image, (image > 100).astype(np.uint16), ("spot",)))
        store.add(Correction(new[:20], (new[:20] > 9).astype(np.uint16), ("spot",)))
        service = serve(None, store=str(store_folder))

        def gain(pixels: np.ndarray) -> ImageGain:
            request = SegmentRequest(words=("cell", "dog"), model=str(tiny_model))
            body = encode_segment_request(pixels, request)
            answer = service.http.post("/v1/gain", params={"request_id": "a"}, content=body)
            return ImageGain.model_validate_json(answer.raise_for_status().content)

        told = gain(new)
        assert told.words == ("cell", "dog")
        probabilities = Predictor(str(tiny_model)).segment(new, told.words).probabilities
        assert told.expected == tuple(map(expected_iou, probabilities))
        assert not told.accepted
        known = gain(image)
        assert known.accepted

        def embeddings() -> list[tuple[float, ...]]:
            asked = {"request_id": "b", "model": str(tiny_model)}
            answer = service.http.get("/v1/annotations/embeddings", params=asked)
            read = Embeddings.model_validate_json(answer.raise_for_status().content)
            return list(read.embeddings)

        assert len(embeddings()) == 2  # each image once
        assert known.embedding in embeddings()
        damaged = store_folder / "arrays" / annotation.image_sha256[:2]
        next(damaged.glob("*.tif")).write_bytes(b"no tiff")
        assert len(embeddings()) == 1
    refused = service.http.post("/v1/gain", params={"request_id": "a"}, content=b"nonsense")
    assert refused.status_code == 422
