"""Train the ClsCLIP head on frozen towers (sections 3.3 and 5 of the paper).

Only the projections L^i, the decoder and the look at a word's presence move; the visual encoder
only if ``encoder_rate`` is set, which the paper does not do. Each step asks
several words of each image, absent ones among them with an empty mask, so that the word matters;
the layers below N1 run once per image.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from clsclip.errors import InvalidConfigError
from clsclip.model.checkpoint import load_model, save_run_model
from clsclip.model.clip import ClipTowers, load_towers
from clsclip.model.clsclip import ClsClip
from clsclip.model.config import HeadSettings
from clsclip.model.device import fast_dtype
from clsclip.model.registry import find_model
from clsclip.training.batches import Batch, Sampler, ViewSettings
from clsclip.training.distributed import ProcessGroup, alone
from clsclip.training.examples import Source
from clsclip.training.folds import FoldSettings, fold_source
from clsclip.training.loop import cosine_rate, train
from clsclip.training.losses import mask_loss, seen_loss
from clsclip.training.prompts import Prompts
from clsclip.training.run import Run
from clsclip.training.sources import shares, training_sources
from clsclip.words import word_list


class FitSettings(HeadSettings, ViewSettings, FoldSettings):
    """What a head training run is asked for."""

    clip: str = Field(
        title="CLIP", description="Folder or hub name of the CLIP whose towers are frozen."
    )
    start: str = Field(
        "",
        title="Start",
        description="Model whose head to go on from, trained on the same CLIP with the same shape; "
        "empty: a new head.",
    )
    pairs: int = Field(4, title="Pairs", description="Words asked of each image.", ge=2)
    cycles: int = Field(
        1, title="Cycles", description="Cosine falls of the learning rate (warm restarts).", ge=1
    )
    encoder_rate: float = Field(
        0.0,
        title="Encoder rate",
        description="Learning rate of the visual encoder, as a part of the head's; 0: frozen, as "
        "in the paper.",
        ge=0,
        le=1,
    )
    description: str = Field("", title="Description", description="One line for lists of models.")


def fit(
    settings: FitSettings,
    output: Path,
    *,
    resume: bool = False,
    tell: Callable[[str], None] = lambda _: None,
    group: ProcessGroup | None = None,
) -> Path:
    """Train a head; its run directory becomes a model directory.

    Parameters
    ----------
    settings : FitSettings
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
        The run directory.
    """
    group = group or alone(settings.device)
    device = group.device
    sources = _sources(settings)
    towers = load_towers(settings.clip)
    if device.type == "cpu":
        towers.clip.set_attn_implementation("eager")  # its backward is faster on the CPU
    torch.manual_seed(settings.seed)
    head = HeadSettings(**{k: getattr(settings, k) for k in HeadSettings.model_fields})
    model = _start(settings.start, towers, head).to(device)
    run = Run(output, settings, resume=resume, writes=group.leads)
    trained = trained_parts(model).train()
    modules: dict[str, torch.nn.Module] = {"head": trained}
    groups: list[dict[str, Any]] = [{"params": list(trained.parameters())}]
    if settings.encoder_rate:
        modules["encoder"] = towers.clip.vision_model
        rate = settings.learning_rate * settings.encoder_rate
        groups.append({"params": _unfrozen(towers), "lr": rate})
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate)
    clock = run.load_state(modules, optimizer)
    seed = group.seed(settings.seed, clock.step)
    sampler = Sampler(
        list(sources.values()), shares(sources, settings.share),
        plan=lambda: settings.plan(clock.part(settings)), pairs=settings.pairs, seed=seed,
        unseen=word_list(settings.unseen),
    )  # fmt: skip
    train(
        run, modules, optimizer, clock, sampler,
        HeadLoss(model, settings.pairs, np.random.default_rng(seed)), settings=settings,
        rate=lambda part: cosine_rate(part, cycles=settings.cycles, warm_up=0.02), tell=tell,
        group=group,
    )  # fmt: skip
    if not group.leads:
        return output
    source = Path(settings.clip)
    save_run_model(
        model.cpu(), output, source=str(source.absolute()) if source.is_dir() else settings.clip,
        description=settings.description,
        training={**settings.model_dump(mode="json"), "steps": clock.step},
        bundle=torch.float32 if settings.encoder_rate else None,
    )  # fmt: skip
    return output


def _sources(settings: FitSettings) -> dict[str, Source]:
    """Data folders, or the training images of a fold."""
    if not settings.dataset:
        return training_sources(settings.data, settings.share, settings.seed)
    source = fold_source(settings.dataset, settings.fold, settings.data, "train")
    return {settings.dataset: source}


def trained_parts(model: ClsClip) -> torch.nn.ModuleDict:
    """What is trained of a model; its weights have the names of ``ClsClip.head_state``."""
    parts: dict[str, torch.nn.Module | None] = {
        "projections": model.projections, "guidance": model.guidance, "decoder": model.decoder,
        "presence": model.presence,
    }  # fmt: skip
    return torch.nn.ModuleDict({name: part for name, part in parts.items() if part is not None})


def _unfrozen(towers: ClipTowers) -> list[torch.nn.Parameter]:
    """The weights of the visual encoder that ClsCLIP uses, set free."""
    visual = towers.clip.vision_model
    parts = (visual.embeddings, visual.pre_layrnorm, visual.encoder)
    parameters = [parameter for part in parts for parameter in part.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    return parameters


def _start(name: str, towers: ClipTowers, head: HeadSettings) -> ClsClip:
    """A new head, or the one of a model."""
    if not name:
        return ClsClip(towers, head)
    model = load_model(find_model(name), towers)
    if model.settings != head:
        raise InvalidConfigError(
            f"The head of '{name}' has another shape: {model.settings.model_dump()}. Ask for the "
            "same one, or start without --start."
        )
    return model


class HeadLoss:
    """Loss of a batch for the trained part of ClsCLIP.

    Parameters
    ----------
    model : ClsClip
    pairs : int
        Q, words asked of each image.
    rng : numpy Generator
        Draws spellings and templates.
    """

    def __init__(self, model: ClsClip, pairs: int, rng: np.random.Generator) -> None:
        self._model, self._pairs = model, pairs
        self._prompts = Prompts(model, rng)

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Mask loss over all (image, word) pairs of a batch, and of the words' presence."""
        device = next(self._model.decoder.parameters()).device
        dtype = fast_dtype(device)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            text = self._prompts(batch.words)
            encoded = self._model.encode(batch.images.to(device)).repeat(self._pairs)
            logits, presence = self._model.answer(encoded, text)
        losses = {"mask": mask_loss(logits, batch.masks.to(device), batch.valid.to(device))}
        if presence is not None:
            losses["presence"] = seen_loss(presence, batch.masks.flatten(1).any(1).to(device))
        return losses
