"""Attention of the [CLS]: transformers' own figures, replaced [CLS], figure and file of explain."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from PIL import Image

from clsclip import Predictor
from clsclip.cli.train import main
from clsclip.errors import CancelledError, InvalidConfigError
from clsclip.model.checkpoint import load_model, save_model
from clsclip.model.clip import normalise
from clsclip.model.clsclip import ClsClip
from clsclip.predict.parts import PartPredictor
from clsclip.segmentation import AttentionMaps
from clsclip.service.jobs import Job, segment_for
from clsclip.training.attention_figure import PANEL, attention_figure
from clsclip.wire import SegmentRequest

ALL = range(6)


@pytest.fixture(scope="module")
def predictor(tiny_model: Path) -> PartPredictor:
    """In float32 on any machine, and with weights large enough that attention is far from even."""
    loaded = PartPredictor(str(tiny_model), device="cpu")
    loaded.dtype = torch.float32
    loaded._model.float()
    with torch.no_grad():
        for layer in loaded._model.towers.layers:
            layer.self_attn.q_proj.weight *= 40
    return loaded


@pytest.fixture(scope="module")
def plain_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that replaces no [CLS]."""
    towers, settings = load_model(tiny_model).towers, load_model(tiny_model).settings
    head = ClsClip(towers, settings.model_copy(update={"replaced_layers": ()}))
    folder = tmp_path_factory.mktemp("models") / "plain"
    save_model(head, folder, source="", bundle=torch.float32)
    return folder


class NotedJob(Job):
    """Remembers how far it was."""

    def __init__(self, request_id: str) -> None:
        super().__init__(request_id)
        self.steps: list[tuple[int, int]] = []

    def report(self, done: int, total: int) -> None:
        super().report(done, total)
        self.steps.append((done, total))


def picture(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


def spread(attention: torch.Tensor, grid: tuple[int, int]) -> NDArray[Any]:
    """Weights of patches, shape (m,), as shares of pixels."""
    shares = attention.reshape(1, 1, *grid) * grid[0] * grid[1]
    size = (16 * grid[0], 16 * grid[1])
    found: NDArray[Any] = F.interpolate(shares, size, mode="bilinear")[0, 0].numpy()
    return found


def pixels_of(image: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None] / 255


@torch.no_grad()
def test_original_maps_are_the_attention_that_transformers_gives(predictor: Predictor) -> None:
    image = picture(32, 64, 3)
    maps = predictor.attention(image, ["nucleus"], layers=ALL, zoom=1.0)
    visual = predictor._model.towers.clip.vision_model
    visual.set_attn_implementation("eager")
    attentions = visual(
        normalise(pixels_of(image)), interpolate_pos_encoding=True, output_attentions=True
    ).attentions
    visual.set_attn_implementation("sdpa")
    assert maps.original.shape == (6, 32, 64)
    assert maps.original.dtype == np.float16
    for layer, weights in enumerate(attentions):
        expected = spread(weights[0].mean(0)[0, 1:], (2, 4))
        assert expected.max() > 1.3 * expected.min()
        assert_allclose(maps.original[layer], expected, rtol=2e-3, atol=1e-5)


@torch.no_grad()
def test_replaced_maps_are_those_of_the_projected_word(predictor: Predictor) -> None:
    image, model = picture(64, 48, 3), predictor._model
    maps = predictor.attention(image, ["nucleus", "airplane"], layers=ALL, zoom=1.0)
    assert maps.words == ("nucleus", "airplane")
    assert maps.replaced.shape == (2, 6, 64, 48)
    for layer in ALL:
        same = np.array_equal(maps.original[layer], maps.replaced[0, layer])
        assert same == (layer < 2), f"layer {layer}"
    assert not np.array_equal(maps.replaced[0, 2], maps.replaced[1, 2])
    # the [CLS] of the word asks in layer 2, after the image's own has passed layers 0 and 1
    tokens = model.towers.embed(pixels_of(image))
    for layer in (0, 1):
        tokens = model.towers.run_layer(layer, tokens)
    word = model.projections["2"](model.text_cls(["airplane"]))
    block = model.towers.layers[2]
    entering = block.layer_norm1(torch.cat([word[:, None], tokens[:, 1:]], 1))
    attention = block.self_attn
    query, keys = attention.q_proj(entering[0, 0]), attention.k_proj(entering[0])
    weights = torch.stack(
        [
            (keys[:, part] @ query[part] * attention.scale).softmax(0)[1:]
            for part in (slice(16 * head, 16 * head + 16) for head in range(3))
        ]
    ).mean(0)
    assert_allclose(maps.replaced[1, 2], spread(weights, (4, 3)), rtol=2e-3, atol=1e-5)


def test_a_word_of_a_head_of_its_own_is_shown_by_that_head(tiny_model: Path) -> None:
    predictor = Predictor(str(tiny_model), device="cpu")
    before = predictor.attention(picture(64, 64), ["nucleus", "cell"], layers=[2])
    taught = {name: tensor + 0.1 for name, tensor in predictor._model.head_state().items()}
    predictor.teach(["cell"], taught, "taught")
    after = predictor.attention(picture(64, 64), ["nucleus", "cell"], layers=[2])
    assert_array_equal(after.replaced[0], before.replaced[0])
    assert not np.array_equal(after.replaced[1], before.replaced[1])


@pytest.mark.parametrize("shape", [(1, 1), (7, 90), (130, 100, 3), (64, 64, 4)])
@pytest.mark.parametrize("zoom", [None, 1.0])
def test_maps_have_the_size_of_the_image_and_hold_shares(
    predictor: Predictor, shape: tuple[int, ...], zoom: float | None
) -> None:
    steps: list[tuple[int, int]] = []
    maps = predictor.attention(
        picture(*shape), ["cell"], zoom=zoom, progress=lambda *step: steps.append(step)
    )
    assert maps.layers == (5,)
    assert maps.original.shape == (1, *shape[:2])
    assert maps.replaced.shape == (1, 1, *shape[:2])
    assert (maps.original >= 0).all()
    if min(shape[:2]) >= 64:
        assert 0.5 < maps.original.mean() < 1.1
    assert steps[-1][0] == steps[-1][1]


def test_segmenting_is_the_same_after_attention_was_shown(predictor: Predictor) -> None:
    image = picture(64, 64)
    before = predictor.segment(image, ["cell"], zoom=1.0).probabilities
    predictor.attention(image, ["cell"], layers=ALL)
    assert_array_equal(predictor.segment(image, ["cell"], zoom=1.0).probabilities, before)
    assert not any(layer.self_attn._forward_pre_hooks for layer in predictor._model.towers.layers)


def test_what_cannot_be_shown_is_named(predictor: Predictor, plain_model: Path) -> None:
    for layers in ([6], [-1]):
        with pytest.raises(InvalidConfigError, match=rf"no layer {layers[0]}; it has 0 to 5"):
            predictor.attention(picture(9, 9), ["cell"], layers=layers)
    with pytest.raises(InvalidConfigError, match="zoom is 17"):
        predictor.attention(picture(9, 9), ["cell"], zoom=17)
    with pytest.raises(CancelledError):
        predictor.attention(picture(9, 9), ["cell"], cancelled=lambda: True)
    plain = Predictor(str(plain_model), device="cpu")
    assert not plain.replaces_cls
    with pytest.raises(InvalidConfigError, match=r"plain' has no attention to compare.*'mini'"):
        plain.attention(picture(9, 9), ["cell"])


def test_requests_get_attention_where_they_ask_and_the_model_has_it(
    predictor: PartPredictor, plain_model: Path
) -> None:
    image, asked = picture(40, 60), SegmentRequest(words=("cell",), zoom=1.0)
    job = NotedJob("id")
    shown = segment_for(predictor, job, image, asked.model_copy(update={"attention": True}))
    expected = predictor.attention(image, ["cell"], zoom=1.0)
    assert shown.attention is not None
    assert_array_equal(shown.attention.original, expected.original)
    assert_array_equal(shown.attention.replaced, expected.replaced)
    assert job.steps == sorted(job.steps)
    without = segment_for(predictor, Job("id"), image, asked)
    assert without.attention is None
    assert_array_equal(without.probabilities, shown.probabilities)
    plain = PartPredictor(str(plain_model), device="cpu")
    found = segment_for(plain, Job("id"), image, asked.model_copy(update={"attention": True}))
    assert found.attention is None
    assert found.probabilities.any()


# ---- the command ----


def arguments(image: Path, model: Path, output: Path, *more: str) -> list[str]:
    return ["explain", "--image", str(image), "--words", "nucleus, airplane", "--model",
            str(model), "--output", str(output), "--device", "cpu", *more]  # fmt: skip


def test_explain_writes_figure_and_maps(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "a slide.png"
    Image.fromarray(picture(50, 100, 3)).save(image)
    output = tmp_path / "new" / "folder"
    assert main(arguments(image, tiny_model, output, "--layers", "2", "--layers", "5")) == 0
    figure, numbers = (Path(line) for line in capsys.readouterr().out.splitlines())
    assert sorted(output.iterdir()) == sorted([figure, numbers])
    expected = Predictor(str(tiny_model), device="cpu").attention(
        picture(50, 100, 3), ["nucleus", "airplane"], layers=[2, 5]
    )
    with tifffile.TiffFile(numbers) as tiff:
        maps, description = tiff.asarray(), tiff.ome_metadata or ""
        assert tiff.series[0].axes == "CYX"
    assert maps.dtype == np.float32
    assert_array_equal(maps[[0, 3]], expected.original)
    assert_array_equal(maps[[1, 2, 4, 5]].reshape(2, 2, 50, 100).swapaxes(0, 1), expected.replaced)
    assert 'Name="layer 5, original [CLS]"' in description
    assert 'Name="layer 5, [CLS] of airplane"' in description
    with Image.open(figure) as drawn:
        assert drawn.width > 3 * PANEL
        assert drawn.height > 4 * PANEL / 2
        shown = np.asarray(drawn)
    assert_array_equal(shown, np.asarray(attention_figure(picture(50, 100, 3), expected)))


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--layers", "6"], 2, "no layer 6"),
        (["--zoom", "0"], 2, "--zoom 0"),
        (["--words", ","], 2, "Type what to segment"),
        (["--image", "missing.png"], 1, "'missing.png' cannot be read"),
    ],
)
def test_explain_says_what_is_wrong(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    more: list[str], code: int, message: str,
) -> None:  # fmt: skip
    image = tmp_path / "a.png"
    Image.fromarray(picture(20, 20)).save(image)
    assert main(arguments(image, tiny_model, tmp_path / "output", *more)) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "output").exists()


def test_explain_of_a_stack_and_into_a_file_say_the_way_out(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stack = tmp_path / "stack.tif"
    tifffile.imwrite(stack, picture(5, 20, 30))
    assert main(arguments(stack, tiny_model, tmp_path / "output")) == 2
    assert "Choose one plane first" in capsys.readouterr().err
    tifffile.imwrite(stack, picture(20, 30))
    shutil.copy(stack, tmp_path / "output")
    assert main(arguments(stack, tiny_model, tmp_path / "output")) == 1
    assert "Give another --output" in capsys.readouterr().err


def test_figure_shows_brighter_where_more_attention_is() -> None:
    original = np.full((1, 40, 80), 0.5, np.float16)
    attended = original.copy()
    attended[:, 10:30, :40] = 4
    maps = AttentionMaps(("cell",), (3,), original, attended[None])
    figure = np.asarray(attention_figure(picture(40, 80, 3), maps).convert("L"), int)
    top, left = 24 + PANEL // 4, 8 + PANEL + 8 + PANEL // 4  # in the attended part of a panel
    in_original, in_replaced = figure[top, left], figure[top, left + PANEL + 8]
    elsewhere = figure[top, left + PANEL + 8 + PANEL // 2]
    assert in_replaced > in_original + 100
    assert abs(in_original - elsewhere) < 3  # one scale for both
    even = replace(maps, original=original * 0, replaced=original[None] * 0)
    assert np.asarray(attention_figure(picture(40, 80, 3), even)).shape == (*figure.shape, 3)
