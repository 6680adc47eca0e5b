"""Pre-train a small CLIP on images with words, masks where there are some.

No small CLIP with 16-pixel patches and biological words can be downloaded, so the bundled model
starts from random weights. Three losses are added: image against text by the sigmoid contrastive
loss, and, so that frozen patch tokens serve dense prediction, pixels against text. For the
latter each patch token is mapped to p x p short pixel embeddings, whose product with a mapped
text token gives the logits of a mask. That map is thrown away afterwards; ClsCLIP never sees it.
Words without masks, the unseen ones among them, only say that they are somewhere in an image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, cast

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from clsclip.errors import CheckpointError
from clsclip.model.clip import encode_text, normalise
from clsclip.model.config import DEFAULT_TEMPLATES
from clsclip.model.device import fast_dtype
from clsclip.training.batches import (
    Batch,
    Sampler,
    ViewSettings,
    caption_matrix,
    target_matrix,
    vocabulary,
)
from clsclip.training.distributed import ProcessGroup, alone
from clsclip.training.drawn import Drawn
from clsclip.training.loop import cosine_rate, decayed_adamw, train
from clsclip.training.losses import mask_loss, presence_loss, sigmoid_contrast
from clsclip.training.prompts import random_prompt
from clsclip.training.run import Clock, Run, load_weights
from clsclip.training.sources import shares, training_sources
from clsclip.training.tokenizer import EVERYDAY_WORDS, train_tokenizer
from clsclip.words import spellings, word_list

TOWERS_FOLDER: Final = "clip"
"""Folder of the run directory that holds the CLIP model."""

CONTRAST_WEIGHT: Final = 0.5
"""Weight of the contrastive loss beside the pixel loss."""

PAIRS: Final = 4
"""Words asked of each image by the pixel loss."""

PRESENCE_WEIGHT: Final = 0.5
"""Weight of the image-level loss of words without masks, per pair of the batch."""

OTHER_WORDS: Final = 32
"""Words per step that were drawn from the vocabulary, beside those of the batch."""


class PretrainSettings(ViewSettings):
    """What a pre-training run is asked for."""

    width: int = Field(224, title="Width", description="Channels of the visual encoder.", ge=32)
    layers: int = Field(12, title="Layers", description="Layers of the visual encoder.", ge=5)
    heads: int = Field(4, title="Heads", description="Attention heads of the visual encoder.")
    text_width: int = Field(192, title="Text width", description="Channels of the text encoder.")
    text_layers: int = Field(4, title="Text layers", description="Layers of the text encoder.")
    first_part: float = Field(
        0.6, title="First part", description="Part of the run with the first size.", ge=0, le=1
    )
    batch_size: int = Field(
        32, title="Batch size", description="Images per step at the image size.", ge=2
    )
    start: str = Field(
        "",
        title="Start",
        description="Run directory of an earlier pre-training of the same size, to go on from its "
        "weights and its tokenizer; empty: random weights.",
    )


class PixelText(nn.Module):
    """Pixels against text: the part of pre-training that is thrown away.

    Parameters
    ----------
    width, text_width, patch_size : int
        D and d of the towers, p.
    channels : int
        Length of a pixel embedding.
    """

    def __init__(self, width: int, text_width: int, patch_size: int, channels: int = 16) -> None:
        super().__init__()
        self.patch_size, self.channels = patch_size, channels
        self.norm = nn.LayerNorm(width)
        self.pixels = nn.Linear(width, channels * patch_size**2)
        self.word = nn.Linear(text_width, channels + 1)

    def forward(self, patches: Tensor, text_cls: Tensor) -> Tensor:
        """Mask logits, shape (B * Q, H, W), for Q texts per image.

        Parameters
        ----------
        patches : Tensor, shape (B, m, D)
            Of square images.
        text_cls : Tensor, shape (B * Q, d)
        """
        side = math.isqrt(patches.shape[1])
        maps = self.pixels(self.norm(patches)).transpose(1, 2).unflatten(2, (side, side))
        pixels = F.pixel_shuffle(maps, self.patch_size)  # (B, channels, H, W)
        word = self.word(text_cls).unflatten(0, (len(patches), -1))  # (B, Q, channels + 1)
        logits = word[..., :-1] @ pixels.flatten(2) / self.channels**0.5 + word[..., -1:]
        return cast(Tensor, logits.flatten(0, 1).unflatten(1, tuple(pixels.shape[2:])))


def small_clip(settings: PretrainSettings, tokenizer: CLIPTokenizer) -> CLIPModel:
    """An untrained CLIP of the asked size."""
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": settings.text_width,
        "intermediate_size": 4 * settings.text_width,
        "num_hidden_layers": settings.text_layers,
        "num_attention_heads": 4,
        "max_position_embeddings": 77,
        "projection_dim": settings.width,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "hidden_size": settings.width,
        "intermediate_size": 4 * settings.width,
        "num_hidden_layers": settings.layers,
        "num_attention_heads": settings.heads,
        "image_size": settings.image_size,
        "patch_size": 16,
        "projection_dim": settings.width,
    }
    torch.manual_seed(settings.seed)
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=settings.width)
    return CLIPModel(config)


def pretrain(
    settings: PretrainSettings,
    output: Path,
    *,
    resume: bool = False,
    tell: Callable[[str], None] = lambda _: None,
    group: ProcessGroup | None = None,
) -> Path:
    """Train a small CLIP and write it to ``output/clip``.

    Parameters
    ----------
    settings : PretrainSettings
    output : Path
        Run directory.
    resume : bool
        Go on with the run that is there.
    tell : callable
        Takes a line of progress now and then.
    group : ProcessGroup, optional
        The processes that train it together; by default, this one is alone.

    Returns
    -------
    Path
        Folder of the CLIP model, as ``CLIPModel.from_pretrained`` reads it.
    """
    group = group or alone(settings.device)
    device = group.device
    sources = training_sources(settings.data, settings.share, settings.seed)
    words = vocabulary(list(sources.values()))
    tokenizer = _tokenizer(settings.start, words)
    run = Run(output, settings, resume=resume, writes=group.leads)
    folder = output / TOWERS_FOLDER
    if group.leads:
        tokenizer.save_pretrained(folder)
    clip = small_clip(settings, tokenizer)
    if device.type == "cpu":
        clip.set_attn_implementation("eager")  # its backward is faster on the CPU
    clip.to(device)  # type: ignore[arg-type]
    pixel_text = PixelText(settings.width, settings.text_width, 16).to(device)
    contrast = nn.ParameterDict({"bias": nn.Parameter(torch.tensor(-5.0))}).to(device)
    trained = {"clip": clip, "pixel_text": pixel_text, "contrast": contrast}
    if settings.start:
        load_weights(Path(settings.start).expanduser(), trained)
    drawn = Drawn()
    modules = {**trained, "drawn": drawn}
    parameters = [p for module in modules.values() for p in module.parameters()]
    optimizer = decayed_adamw(parameters, settings.learning_rate, (0.9, 0.98))
    clock = run.load_state(modules, optimizer)
    run.forget_after(clock.step)

    def plan(number: int) -> tuple[int, int]:
        step = number // group.size if settings.steps else clock.step
        return settings.plan(Clock(step, clock.seconds).part(settings))

    sampler = Sampler(
        list(sources.values()), shares(sources, settings.share), plan=plan, pairs=PAIRS,
        seed=settings.seed, unseen=word_list(settings.unseen), image_level=True, drawn=drawn,
        numbers=group.batch_numbers(clock.step),
    )  # fmt: skip
    step = _Step(clip, tokenizer, pixel_text, contrast["bias"], words)
    train(
        run, modules, optimizer, clock, sampler, step, settings=settings,
        rate=lambda part: cosine_rate(part, warm_up=0.03), tell=tell, group=group,
    )  # fmt: skip
    if group.leads:
        clip.save_pretrained(folder)
    return folder


def _tokenizer(start: str, words: Sequence[str]) -> CLIPTokenizer:
    """The tokenizer of the run to go on from, or a new one for some words."""
    if not start:
        forms = [form for word in words for form in spellings(word)]
        texts = [t.format(form) for form in forms for t in DEFAULT_TEMPLATES]
        return train_tokenizer([*texts, *EVERYDAY_WORDS])
    folder = Path(start).expanduser() / TOWERS_FOLDER
    if not (folder / "tokenizer.json").is_file():
        raise CheckpointError(
            f"'{start}' is no pre-training to go on from: it has no tokenizer. Give the run "
            "directory of one to --start."
        )
    tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    return tokenizer


class _Step:
    """The losses of one batch."""

    def __init__(
        self,
        clip: CLIPModel,
        tokenizer: CLIPTokenizer,
        pixel_text: PixelText,
        bias: Tensor,
        vocabulary: tuple[str, ...],
    ) -> None:
        self._clip, self._tokenizer, self._pixel_text = clip, tokenizer, pixel_text
        self._bias, self._vocabulary = bias, vocabulary

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Weighted contrastive loss, pixel loss and presence loss."""
        device = self._bias.device
        rng = np.random.default_rng((*batch.seed, 1))
        columns = self._columns(batch, rng)
        prompts = [random_prompt(word, DEFAULT_TEMPLATES, rng) for word in columns]
        prompts += [caption for caption in batch.captions if caption]
        dtype = fast_dtype(device)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            text_cls = encode_text(self._clip, self._tokenizer, prompts)
            visual = self._clip.vision_model(
                pixel_values=normalise(batch.images.to(device)), interpolate_pos_encoding=True
            )
            images = F.normalize(self._clip.visual_projection(visual.pooler_output), dim=-1)
            texts = F.normalize(self._clip.text_projection(text_cls), dim=-1)
            scale = self._clip.logit_scale.exp().clamp(max=100)
            similarity = (images @ texts.T).float() * scale + self._bias
            asked = torch.tensor([columns[word] for word in batch.words], device=device)
            logits = self._pixel_text(visual.last_hidden_state[:, 1:], text_cls[asked])
        target, known = target_matrix(batch, list(columns))
        captions = caption_matrix(batch)
        target = torch.cat([target, captions], 1).to(device)
        known = torch.cat([known, torch.ones_like(captions)], 1).to(device)
        located = batch.located.to(device)
        masks, valid = batch.masks.to(device)[located], batch.valid.to(device)[located]
        presence = presence_loss(logits[~located]) / len(logits)
        return {
            "contrast": CONTRAST_WEIGHT * sigmoid_contrast(similarity, target, known),
            "pixel": mask_loss(logits[located], masks, valid),
            "presence": PRESENCE_WEIGHT * presence,
        }

    def _columns(self, batch: Batch, rng: np.random.Generator) -> dict[str, int]:
        """Words of this step and their places: those of the batch, and some others."""
        own = [*batch.words, *(word for present in batch.present for word in sorted(present))]
        others = rng.permutation(self._vocabulary)[:OTHER_WORDS]
        unique = dict.fromkeys([*own, *map(str, others)])
        return {word: column for column, word in enumerate(unique)}
