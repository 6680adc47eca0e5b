"""The guidances that Tables 1 and 2 compare with: where the word acts, and what is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from clsclip.model.checkpoint import load_model, save_model
from clsclip.model.clsclip import ClsClip
from clsclip.model.config import GuidanceKind, HeadSettings, ModelConfig
from clsclip.model.guidance import ChannelAttention, SpatialAttention, VisualPrompts
from clsclip.training.fit import trained_parts
from clsclip.training.footprint import step_bytes
from clsclip.training.losses import mask_loss

OTHERS: tuple[GuidanceKind, ...] = ("channel", "spatial", "prompts")


@pytest.fixture
def base(tiny_model: Path) -> ClsClip:
    """The tiny model, whose [CLS] is replaced."""
    return load_model(tiny_model)


def guided(base: ClsClip, guidance: GuidanceKind) -> ClsClip:
    settings = base.settings.model_copy(update={"guidance": guidance, "prompt_tokens": 7})
    torch.manual_seed(0)
    return ClsClip(base.towers, settings).eval()


@pytest.mark.parametrize("guidance", OTHERS)
def test_words_decide_and_share_what_no_word_reaches(base: ClsClip, guidance: GuidanceKind) -> None:
    model = guided(base, guidance)
    pixels = torch.rand(2, 3, 64, 48)
    encoded = model.encode(pixels)
    masks = []
    for word in model.text_cls(["nucleus", "airplane"]):
        logits = model.decode(encoded, word.expand(2, -1))
        torch.testing.assert_close(logits, model(pixels, word.expand(2, -1)))
        assert logits.shape == (2, 64, 48)
        masks.append(logits)
    # a weight that the decoder's LayerNorm cancelled would leave rounding errors only
    assert (masks[0] - masks[1]).abs().mean() > 1e-4 * masks[0].std()


@pytest.mark.parametrize("guidance", OTHERS)
def test_only_the_head_is_trained_and_all_of_the_guidance(
    base: ClsClip, guidance: GuidanceKind
) -> None:
    model = guided(base, guidance)
    frozen = {name: p.clone() for name, p in model.towers.state_dict().items()}
    before = {name: p.clone() for name, p in model.head_state().items()}
    assert any(name.startswith("guidance.") for name in before)
    assert not any(name.startswith("projections.") for name in before)
    assert trained_parts(model).state_dict().keys() == before.keys()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    logits = model.train()(torch.rand(2, 3, 64, 64), model.text_cls(["nucleus", "cell"]))
    mask_loss(logits, torch.rand(2, 64, 64) > 0.5, torch.ones(2, 64, 64)).backward()
    optimizer.step()
    for name, tensor in model.towers.state_dict().items():
        assert torch.equal(tensor, frozen[name]), name
    moved = {name for name, p in model.head_state().items() if not torch.equal(p, before[name])}
    assert moved == set(before)


def test_prompts_enter_every_layer_and_leave_it_again(base: ClsClip) -> None:
    model = guided(base, "prompts")
    prompts = model.guidance
    assert isinstance(prompts, VisualPrompts)
    word = model.text_cls(["nucleus"])
    seen: list[torch.Tensor] = []
    for layer in model.towers.layers:
        layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
    shallow = model.encode(torch.rand(1, 3, 64, 64)).shallow
    output = model.guide(shallow, word)
    assert shallow.shape == output.shape == (1, 17, 48)
    assert len(seen) == 6
    for index, tokens in enumerate(seen):
        expected = prompts.tokens[index] + prompts.project(word)
        torch.testing.assert_close(tokens[0, 17:], expected)
    assert torch.equal(seen[0][:, :17], shallow)


def test_attention_weights(base: ClsClip) -> None:
    patches, grid = torch.randn(2, 12, 48), (4, 3)
    words = base.text_cls(["nucleus", "airplane"])
    channels = ChannelAttention(48, 32)(patches, words, grid)
    assert channels.shape == (2, 1, 48)
    spatial = SpatialAttention(48, 32)
    weights = spatial(patches, words, grid)
    assert weights.shape == (2, 12, 1)
    for each in (channels, weights):
        assert 0 < each.min() < each.max() < 1
    loud = patches.clone()
    loud[..., 5] += 60  # as single channels of a CLIP have it
    unsaturated = spatial(loud, words, grid)
    assert 0.02 < unsaturated.min() < unsaturated.max() < 0.98
    # rows and columns are those of the grid: what is like the word acts on 7 x 7 patches only
    with torch.no_grad():
        spatial.convolution.weight[:, :2] = 0
    wide = torch.randn(1, 30, 48)
    other = wide.clone()
    other[:, 0] *= -1
    changed = (spatial(wide, words[:1], (3, 10)) != spatial(other, words[:1], (3, 10))).view(3, 10)
    assert changed[:, :4].all()
    assert not changed[:, 4:].any()


def test_a_model_with_another_guidance_is_written_and_read(base: ClsClip, tmp_path: Path) -> None:
    pixels, word = torch.rand(1, 3, 64, 64), base.text_cls(["cell"])
    for guidance in OTHERS:
        model = guided(base, guidance)
        save_model(model, tmp_path / guidance, source="", bundle=torch.float32)
        again = load_model(tmp_path / guidance)
        assert again.settings == model.settings
        assert torch.equal(again(pixels, word), model(pixels, word))


def test_configurations_without_a_guidance_replace(tiny_model: Path) -> None:
    config = ModelConfig.model_validate_json((tiny_model / "config.json").read_bytes())
    content = config.model_dump()
    del content["head"]["guidance"], content["head"]["prompt_tokens"]
    assert ModelConfig.model_validate(content) == config
    assert config.head.guidance == "replace"


def test_presence_needs_a_word_in_the_encoder(base: ClsClip) -> None:
    for guidance in ("channel", "spatial"):
        with pytest.raises(ValueError, match=f"guidance '{guidance}' no word reaches the encoder"):
            HeadSettings(guidance=guidance, presence=True)
    settings = base.settings.model_copy(update={"guidance": "prompts", "presence": True})
    model = ClsClip(base.towers, settings)
    both = model.encode(torch.rand(1, 3, 64, 64)).repeat(2)
    presence = model.answer(both, model.text_cls(["nucleus", "airplane"]))[1]
    assert presence is not None
    assert presence[0] != presence[1]


def test_memory_of_a_step_knows_the_guidance(base: ClsClip) -> None:
    needed = {kind: step_bytes(guided(base, kind), 8, 64) for kind in OTHERS}
    replaced = step_bytes(base, 8, 64)
    assert needed["channel"] < replaced < needed["prompts"]
