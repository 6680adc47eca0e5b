"""Large images: one zoom per word, blocks without seams, memory that does not grow."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from clsclip import Predictor, looks
from clsclip.errors import InvalidImageError
from clsclip.image_sources import ImageSource
from clsclip.looks import Looks
from clsclip.predict import large
from clsclip.predict.large import LargeSegmenter, choose_looks


@pytest.fixture(scope="module")
def predictor(tiny_model: Path) -> Predictor:
    return Predictor(str(tiny_model), device="cpu")


def source_of(image: NDArray[np.generic]) -> ImageSource:
    return ImageSource("image", lambda: image, image.shape, image.dtype, "yxs"[: image.ndim])


def test_blocks_of_words_at_several_zooms_equal_one_look(
    predictor: Predictor, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most one step of 1/255 apart, at very few pixels: the order of float32 sums."""
    monkeypatch.setattr(large, "STRIP_VALUES", 10_000)
    image = rng.integers(0, 4000, (250, 700), dtype=np.uint16)
    words, limits = ["nucleus", "cell", "dog"], (100.0, 3000.0)
    passes = ((1.0,), (0.5,), (1.0, 0.5))
    found = np.full((3, *image.shape), -1)
    looks = Looks(limits, passes)
    with LargeSegmenter(predictor, source_of(image), words, looks, chunk=64) as segmenter:
        assert segmenter.blocks.grid == (4, 3)
        order = segmenter.in_order()
        assert [block.number for block in order[:5]] == [0, 3, 6, 9, 1]
        for block in order:
            for region, probabilities in segmenter.segment(block):
                assert max(probabilities.shape[1:]) <= 64
                found[(slice(None), *region)] = probabilities
    for k, (word, zooms) in enumerate(zip(words, passes, strict=True)):
        whole = [
            predictor.segment(image, [word], zoom=zoom, contrast_limits=limits).probabilities[0]
            for zoom in zooms
        ]
        difference = np.abs(found[k] - np.mean(whole, axis=0))
        assert difference.max() <= 1
        assert (difference > 0.5).mean() < 0.01  # half a step is the rounding of the mean


def scene(shape: tuple[int, int], radius: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Bright disks on dark, in the lower half of an image."""
    image = rng.integers(0, 20, shape, dtype=np.uint8)
    rows, columns = np.indices((2 * radius + 1, 2 * radius + 1)) - radius
    disk = np.hypot(rows, columns) <= radius
    for top in range(shape[0] // 2, shape[0] - 3 * radius, 4 * radius):
        for left in range(radius, shape[1] - 3 * radius, 4 * radius):
            part = image[top : top + len(disk), left : left + len(disk)]
            part[disk] = rng.integers(150, 255)
    return image


@pytest.mark.slow
def test_the_zoom_is_that_of_a_small_image_unless_the_overview_shows_enough(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "SAMPLES", 1)
    predictor = Predictor("mini")
    small = predictor.segment(scene((512, 512), 9, rng), ["nucleus"]).zooms[0]
    chosen = choose_looks(predictor, source_of(scene((5000, 6000), 9, rng)), ["nucleus"])
    assert chosen.contrast_limits == (0.0, 255.0)
    assert small > 1.0
    assert chosen.zooms[0] == pytest.approx(small, rel=0.5)
    seen: list[tuple[int, ...]] = []
    segment = predictor.segment

    def counted(image: NDArray[Any], *words: Any, **options: Any) -> Any:
        seen.append(image.shape)
        return segment(image, *words, **options)

    monkeypatch.setattr(looks, "SAMPLES", 4)
    monkeypatch.setattr(predictor, "segment", counted)
    chosen = choose_looks(predictor, source_of(scene((5000, 6000), 600, rng)), ["nucleus"])
    assert chosen.zooms[0] < 0.2
    # the overview, and one sample, to see that the large objects are not many small ones
    assert seen == [(417, 500), (512, 512)]


def test_limits_are_those_of_the_overview_once_for_all(
    predictor: Predictor, rng: np.random.Generator
) -> None:
    image = rng.normal(size=(900, 1500)).astype(np.float32)
    image[0, 0], image[0, 1] = -70, 90  # every third pixel is seen
    looks = choose_looks(predictor, source_of(image), ["cell", "dog"], zoom=0.5)
    assert looks.zooms == (0.5, 0.5)
    assert looks.contrast_limits == (-70.0, float(image[::3, ::3].max()))
    image[:] = np.nan
    with pytest.raises(InvalidImageError, match="NaN"):
        choose_looks(predictor, source_of(image), ["cell"])


def test_samples_lie_where_there_is_structure_and_do_not_overlap(rng: np.random.Generator) -> None:
    image = np.zeros((5000, 9000), np.uint8)
    image[2600:, 4000:] = rng.integers(0, 255, (2400, 5000))
    overview = source_of(image).overview(looks.OVERVIEW_SIDE)
    samples = looks._samples(overview.astype(np.float64), 18, image.shape)
    assert len({(rows.start, columns.start) for rows, columns in samples}) == looks.SAMPLES
    for rows, columns in samples:
        assert rows.stop > 2600
        assert columns.stop > 4000
        assert (rows.stop - rows.start, columns.stop - columns.start) == (512, 512)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_memory_does_not_grow_with_the_image(tiny_model: Path, tmp_path: Path) -> None:
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=(16_000, 4_000), chunks=(1000, 1000), dtype="u1"
    )
    array[::3000, ::3000] = 200
    script = (
        "import re, sys; from pathlib import Path; from clsclip import Predictor\n"
        "from clsclip import image_sources; image_sources.source._TILE_BYTES = 2**22\n"
        "from clsclip.image_sources import open_source\n"
        "from clsclip.predict.large import LargeSegmenter, choose_looks\n"
        "predictor = Predictor(sys.argv[1])\n"
        "source = open_source(Path(sys.argv[2]))\n"
        "looks = choose_looks(predictor, source, ['cell'], zoom=0.1)\n"
        "with LargeSegmenter(predictor, source, ['cell'], looks, chunk=1000) as segmenter:\n"
        "    for block in segmenter.in_order():\n"
        "        list(segmenter.segment(block))\n"
        "        print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(tiny_model), str(tmp_path / "a.zarr")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    peaks = [int(kilobytes) / 1024 for kilobytes in re.findall(r"\d+", run.stdout)]
    assert len(peaks) == 16
    assert peaks[-1] - peaks[3] < 20
