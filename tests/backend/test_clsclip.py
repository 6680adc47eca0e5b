"""The method itself: replaced [CLS], what moves in training, words sharing shallow layers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from clsclip.errors import InvalidConfigError
from clsclip.model.checkpoint import load_model
from clsclip.model.clsclip import ClsClip
from clsclip.model.config import HeadSettings
from clsclip.model.match import Match
from clsclip.model.presence import gate
from clsclip.training.losses import mask_loss


@pytest.fixture(
    params=[
        {},
        {"detail_channels": 8},
        {"detail_channels": 8, "presence": True},
        {"detail_channels": 8, "presence": True, "match": True},
    ],
    ids=["paper", "detail", "presence", "match"],
)
def model(tiny_model: Path, request: pytest.FixtureRequest) -> ClsClip:
    """As in the paper, with the decoder's look at the image itself, and with all of ours."""
    model = load_model(tiny_model)
    settings = model.settings.model_copy(update=request.param)
    return ClsClip(model.towers, settings).eval() if request.param else model


def layer_inputs(model: ClsClip, pixels: torch.Tensor, word: torch.Tensor) -> list[torch.Tensor]:
    """Input of every visual layer while the model runs, through hooks on transformers' layers."""
    seen: list[torch.Tensor] = []
    hooks = [
        layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
        for layer in model.towers.layers
    ]
    model(pixels, word)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("replaced", [(2, 3, 4), (0, 1, 2), (1, 3, 5)])
def test_replaced_cls_changes_the_image_only_from_layer_n1_on(
    model: ClsClip, replaced: tuple[int, ...]
) -> None:
    head = HeadSettings(replaced_layers=replaced, decoder_width=24, decoder_heads=3, image_size=64)
    model = ClsClip(model.towers, head)
    pixels = torch.rand(1, 3, 64, 64)
    nucleus, airplane = model.text_cls(["nucleus", "airplane"])[:, None]
    first, second = layer_inputs(model, pixels, nucleus), layer_inputs(model, pixels, airplane)
    start = replaced[0]
    for index, (a, b) in enumerate(zip(first, second, strict=True)):
        patches_equal = torch.equal(a[:, 1:], b[:, 1:])
        assert patches_equal == (index <= start), f"patch tokens entering layer {index}"
        if index in replaced:
            torch.testing.assert_close(a[:, 0], model.projections[str(index)](nucleus))
        elif index < start:
            assert torch.equal(a[:, 0], b[:, 0])
    assert not torch.equal(model(pixels, nucleus), model(pixels, airplane))


def test_layers_after_n2_keep_the_cls_of_the_layer_before(model: ClsClip) -> None:
    pixels = torch.rand(1, 3, 64, 64)
    inputs = layer_inputs(model, pixels, model.text_cls(["nucleus"]))
    output = model.towers.run_layer(4, inputs[4])
    torch.testing.assert_close(inputs[5], output)


def test_words_share_the_shallow_layers(model: ClsClip) -> None:
    pixels = torch.rand(2, 3, 64, 48)
    words = model.text_cls(["nucleus", "airplane", "cell"])
    encoded = model.encode(pixels)
    for word in words:
        expected = model(pixels, word.expand(2, -1))
        torch.testing.assert_close(model.decode(encoded, word.expand(2, -1)), expected)
        assert expected.shape == (2, 64, 48)


def test_absent_words_lower_the_mask_and_present_ones_leave_it() -> None:
    logits = torch.randn(3, 4, 5)
    gated = gate(logits, torch.tensor([20.0, 0.0, -8.0]))
    torch.testing.assert_close(gated[0], logits[0])
    torch.testing.assert_close(gated[1], logits[1] - math.log(2))
    torch.testing.assert_close(gated[2], logits[2] - 8, atol=1e-3, rtol=0)


def test_presence_is_judged_by_image_and_word(model: ClsClip) -> None:
    if not model.settings.presence:
        assert model.answer(model.encode(torch.rand(1, 3, 64, 64)), torch.zeros(1, 32))[1] is None
        return
    words = model.text_cls(["nucleus", "airplane"])
    both = model.encode(torch.rand(1, 3, 64, 64)).repeat(2)
    logits, presence = model.answer(both, words)
    assert presence is not None
    assert presence.shape == (2,)
    assert presence[0] != presence[1]
    tokens = model.guide(both.shallow, words)
    plain = model.decoder(tokens[:, 1:], both.grid, both.detail)
    if model.match is not None:
        plain = model.match.gate(plain, tokens[:, 1:], words, both.grid)
    torch.testing.assert_close(logits, gate(plain, presence))
    assert torch.equal(model.decode(both, words), logits)


def test_a_mask_is_lowered_where_patches_do_not_fit_the_word() -> None:
    match = Match(6, 4)
    with torch.no_grad():
        match.shift.zero_()
        match.scale.fill_(30.0)
    patches, words = torch.randn(2, 12, 6), torch.randn(3, 4)
    every = match(patches, words)  # all words of all images at once
    assert every.shape == (2, 3, 12)
    for image, word in ((0, 2), (1, 0)):
        alone = match(patches[image, None], words[word].view(1, 1, 4))
        torch.testing.assert_close(alone[0, 0], every[image, word])
    with torch.no_grad():  # one that fits the left half of a wide image, and not the right one
        match.norm = torch.nn.Identity()  # type: ignore[assignment]
        match.patch.weight.zero_()
        match.patch.bias.zero_()
        match.patch.weight[0, 0] = 1.0
        match.word.weight.zero_()
        match.word.bias.zero_()
        match.word.bias[0] = 1.0
    halves = torch.zeros(1, 12, 6)
    halves[0, :, 0] = torch.tensor([5.0, 5.0, 5.0, -5.0, -5.0, -5.0]).repeat(2)
    lowered = match.gate(torch.full((1, 32, 96), 3.0), halves, torch.zeros(1, 4), (2, 6))[0]
    torch.testing.assert_close(lowered[:, :40], torch.full((32, 40), 3.0))
    assert float(lowered[:, 56:].detach().max()) < -10


def test_detail_knows_no_word(model: ClsClip) -> None:
    pixels = torch.rand(1, 3, 64, 48)
    detail = model.encode(pixels).detail
    channels = model.settings.detail_channels
    if not channels:
        assert detail is None
        return
    assert detail is not None
    assert detail.shape == (1, channels, 32, 24)
    sharper = pixels.clone()
    sharper[..., 20:24, 20:24] = 1 - sharper[..., 20:24, 20:24]
    changed = (model.encode(sharper).detail - detail).abs().amax(1)[0]  # type: ignore[operator]
    assert changed[9:13, 9:13].min() > 0
    assert changed[16:].max() == 0  # it is local: only the patches know the whole


def test_training_step_moves_the_head_only_and_reaches_every_projection(model: ClsClip) -> None:
    frozen = {name: p.clone() for name, p in model.towers.state_dict().items()}
    trained = [p for p in model.parameters() if p.requires_grad]
    assert {id(p) for p in trained} == {
        id(p)
        for part in (model.projections, model.guidance, model.decoder, model.presence, model.match)
        if part is not None
        for p in part.parameters()
    }
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    before = {name: p.clone() for name, p in model.head_state().items()}
    model.train()
    logits = model(torch.rand(2, 3, 64, 64), model.text_cls(["nucleus", "cell"]))
    mask_loss(logits, torch.rand(2, 64, 64) > 0.5, torch.ones(2, 64, 64)).backward()
    for name, projection in model.projections.items():
        for parameter in projection.parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
    optimizer.step()
    for name, tensor in model.towers.state_dict().items():
        assert torch.equal(tensor, frozen[name]), name
    moved = [name for name, p in model.head_state().items() if not torch.equal(p, before[name])]
    assert set(moved) == set(before)


def test_templates_are_averaged_and_can_be_switched_off(model: ClsClip) -> None:
    texts = [t.format("nucleus") for t in model.settings.prompt_templates]
    mean = model.towers.text_cls(texts).mean(0, keepdim=True)
    torch.testing.assert_close(model.text_cls(["nucleus"]), mean, atol=1e-5, rtol=1e-5)
    bare = model.text_cls(["nucleus"], templates=False)
    torch.testing.assert_close(bare, model.towers.text_cls(["nucleus"]))
    assert not torch.allclose(bare, mean)


def test_impossible_layers_are_refused(model: ClsClip) -> None:
    with pytest.raises(InvalidConfigError, match="layers 0 to 5"):
        ClsClip(model.towers, HeadSettings(replaced_layers=(5, 6), image_size=64))
    with pytest.raises(InvalidConfigError, match="multiple of the patch size"):
        ClsClip(model.towers, HeadSettings(image_size=100))
    with pytest.raises(ValueError, match="ascending"):
        HeadSettings(replaced_layers=(3, 2))
    with pytest.raises(ValueError, match="needs exactly one"):
        HeadSettings(prompt_templates=("a photo",))
