"""Train the ClsCLIP head on frozen towers (sections 3.3 and 5 of the paper).

Only the projections L^i, the decoder and the look at a word's presence move; the visual encoder
only if ``encoder_rate`` is set, the text encoder if ``text_rate`` or ``text_steps`` is, which the
paper does not do. Each step asks several words of each image, absent ones among them with an empty
mask, so that the word matters; the layers below N1 run once per image. By steps or epochs, two
runs of one seed are the same, and so is one that was killed and went on (on one machine, by one
process).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from clsclip.config import Settings
from clsclip.errors import DeviceError, FileError, InvalidConfigError
from clsclip.model.checkpoint import load_model, save_run_model
from clsclip.model.clip import ClipTowers, load_towers
from clsclip.model.clsclip import ClsClip
from clsclip.model.config import HeadSettings, read_config
from clsclip.model.device import fast_dtype
from clsclip.model.files import read_json, write_atomically
from clsclip.model.registry import find_model
from clsclip.training.batches import Batch, Sampler, vocabulary
from clsclip.training.board import VIEWS, Board, TensorBoard, event_writer, fixed_views
from clsclip.training.compared import compared_words, match_targets
from clsclip.training.distributed import ProcessGroup, alone
from clsclip.training.drawn import Drawn
from clsclip.training.examples import Source
from clsclip.training.folds import fold_source
from clsclip.training.footprint import require_memory
from clsclip.training.loop import cosine_rate, train
from clsclip.training.losses import mask_loss, match_loss, seen_loss
from clsclip.training.prompts import Prompts
from clsclip.training.recipe import RecipeSettings, Schedule
from clsclip.training.run import Clock, Run
from clsclip.training.scenes import Scenes
from clsclip.training.sources import shares, training_sources
from clsclip.training.word_places import place_words
from clsclip.words import withheld, word_list

SCHEDULE_FILE: Final = "schedule.json"

FREE: Final = ("tensorboard", "download", "edge_radius")
"""Settings that change nothing of what is learnt."""


class _KeptSchedule(Settings):
    """Content of ``schedule.json``."""

    effective_batch: int


class FitSettings(HeadSettings, RecipeSettings):
    """What a head training run is asked for."""

    clip: str = Field(
        "openai/clip-vit-base-patch16",
        title="CLIP",
        description="Folder or hub name of the CLIP whose towers are frozen.",
    )
    start: str = Field(
        "",
        title="Start",
        description="Model whose head to go on from, trained on the same CLIP with the same shape "
        "(--presence and --match may be new); empty: a new head.",
    )
    pairs: int = Field(4, title="Pairs", description="Words asked of each image.", ge=1)
    encoder_rate: float = Field(
        0.0,
        title="Encoder rate",
        description="Learning rate of the visual encoder, as a part of the head's; 0: frozen, as "
        "in the paper.",
        ge=0,
        le=1,
    )
    text_rate: float = Field(
        0.0,
        title="Text rate",
        description="The same of the text encoder, for words that it has not read before; 0: "
        "frozen, as in the paper.",
        ge=0,
        le=1,
    )
    text_steps: int = Field(
        0,
        title="Text steps",
        description="Steps in which the text encoder alone learns to tell apart words that only "
        "drawn scenes have, before everything else. 0: none, as in the paper.",
        ge=0,
    )
    image_level: bool = Field(
        False,
        title="Image level",
        description="Use words without masks, the unseen ones among them, as words of whole "
        "images, as a CLIP reads them in its pre-training. The paper, whose CLIP was trained "
        "before, does not use them at all.",
    )
    tensorboard: bool = Field(
        False,
        title="TensorBoard",
        description="Also write losses, learning rate and pictures of some masks into OUTPUT for "
        "TensorBoard (python -m pip install 'napari-clsclip[tensorboard]').",
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
    if settings.tensorboard and group.leads:
        event_writer()  # or it is said before anything is done
    sources = _sources(settings, group)
    schedule = Schedule(settings, _images(sources, settings), group.size)
    budget = schedule.budget
    towers = load_towers(settings.clip)
    if device.type == "cpu":
        towers.clip.set_attn_implementation("eager")  # its backward is faster on the CPU
    torch.manual_seed(settings.seed)
    head = HeadSettings(**{k: getattr(settings, k) for k in HeadSettings.model_fields})
    given = "edge_radius" in settings.model_fields_set
    model = _start(settings.start, towers, head, given=given).to(device)
    if device.type == "cpu":  # where the system ends a process that asks for too much
        for count, side in (settings.plan(0.0), settings.plan(1.0)):
            require_memory(model, count * settings.pairs, side, device)
    run = Run(output, settings, resume=resume, writes=group.leads, free=FREE)
    trained, drawn = trained_parts(model).train(), Drawn()
    modules: dict[str, torch.nn.Module] = {"head": trained, "drawn": drawn}
    groups: list[dict[str, Any]] = [{"params": list(trained.parameters())}]
    for name, part, share in (
        ("encoder", towers.clip.vision_model, settings.encoder_rate),
        ("text", towers.clip.text_model, settings.text_rate),
    ):
        if share:
            modules[name] = part
            groups.append({"params": _unfrozen(part), "lr": settings.learning_rate * share})
    if settings.text_steps:  # its checkpoint has to tell where the words were placed
        modules["text"] = towers.clip.text_model
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)
    clock = run.load_state(modules, optimizer)
    if settings.text_steps and not clock.step:
        _place_words(model, sources, settings, tell)
    if group.leads:
        _keep_schedule(schedule, output, clock)
    run.forget_after(clock.step)
    tell(schedule.describe())
    sample = partial(
        Sampler, list(sources.values()), shares(sources, settings.share), pairs=settings.pairs,
        seed=settings.seed, unseen=word_list(settings.unseen),
        image_level=settings.image_level, patch=towers.patch_size if model.match else 0,
    )  # fmt: skip
    with closing(_board(settings, run, clock, model, sample, group)) as board:
        sampler = sample(
            plan=lambda number: schedule.plan(number, clock), drawn=drawn,
            numbers=group.batch_numbers(clock.step * schedule.accumulate),
        )  # fmt: skip
        try:
            train(
                run, modules, optimizer, clock, sampler, HeadLoss(model, settings.pairs),
                settings=budget, rate=partial(
                    cosine_rate, cycles=settings.cycles, warm_up=settings.warm_up
                ),
                tell=tell, accumulate=schedule.accumulate, group=group,
                reported=lambda at, figures: board.report(at.step, at.part(budget), figures),
            )  # fmt: skip
        except torch.OutOfMemoryError as error:
            raise DeviceError(
                f"The memory of {device} ran out with {settings.batch_size} images at a time. Give "
                "a smaller --batch-size and another --output; without --accumulate, a step has as "
                "many images then."
            ) from error
    if not group.leads:
        return output
    source = Path(settings.clip)
    save_run_model(
        model.cpu(), output, source=str(source.absolute()) if source.is_dir() else settings.clip,
        description=settings.description,
        training={
            **settings.model_dump(mode="json"), "steps": clock.step,
            "effective_batch": schedule.effective_batch, "edge_radius": model.edge_radius,
        },
        bundle=torch.float32 if _trains_encoders(settings) else None,
        words=_words_read(sources, settings),
    )  # fmt: skip
    return output


def _place_words(
    model: ClsClip, sources: dict[str, Source], settings: FitSettings, tell: Callable[[str], None]
) -> None:
    """Find places for the words of drawn scenes; those of data folders stay where they are."""
    held = vocabulary(s for s in sources.values() if not isinstance(s, Scenes))
    moved = [word for word in vocabulary(sources.values()) if word not in frozenset(held)]
    encoder = model.towers.clip.text_model
    _unfrozen(encoder)
    place_words(model, moved, held, steps=settings.text_steps, seed=settings.seed, tell=tell)
    if not settings.text_rate:
        encoder.requires_grad_(False)


def _trains_encoders(settings: FitSettings) -> bool:
    """Whether the weights of the CLIP change."""
    return bool(settings.encoder_rate or settings.text_rate or settings.text_steps)


def _keep_schedule(schedule: Schedule, output: Path, clock: Clock) -> None:
    """Note how large the steps of a run are; of one that goes on, see that they stay so."""
    file = output / SCHEDULE_FILE
    if clock.step:
        kept = read_json(file, _KeptSchedule)
        if kept is not None:
            schedule.require_same(kept.effective_batch)
    text = _KeptSchedule(effective_batch=schedule.effective_batch).model_dump_json() + "\n"
    try:
        write_atomically(file, text.encode())
    except OSError as error:
        raise FileError(f"'{file}' cannot be written ({error}). Free space there.") from error


def _sources(settings: FitSettings, group: ProcessGroup) -> dict[str, Source]:
    """Data folders, or the training images of a fold, which one process fetches for all."""
    if not settings.dataset:
        return training_sources(settings.data, settings.share, settings.seed)
    ask = partial(fold_source, settings.dataset, settings.fold, settings.data, "train")
    if group.leads:
        source = ask(download=settings.download)
    group.agree(True)
    if not group.leads:
        source = ask()
    return {settings.dataset: source}


def _images(sources: dict[str, Source], settings: FitSettings) -> int:
    """Images that are drawn from, scenes not counted."""
    given = zip(sources.values(), shares(sources, settings.share), strict=True)
    return sum(len(s) for s, share in given if share > 0 and not isinstance(s, Scenes))


def _words_read(sources: dict[str, Source], settings: FitSettings) -> tuple[str, ...]:
    """Words that the head has read, those of the model that it went on from among them."""
    words = vocabulary(sources.values())
    unread = frozenset[str]()
    if not settings.image_level:
        unread = withheld(words, word_list(settings.unseen))
    older = read_config(find_model(settings.start)).words if settings.start else ()
    return tuple(dict.fromkeys([*older, *(word for word in words if word not in unread)]))


def _board(
    settings: FitSettings, run: Run, clock: Clock, model: ClsClip, sample: Callable[..., Sampler],
    group: ProcessGroup,
) -> Board:  # fmt: skip
    """What TensorBoard is to show, if it is asked for."""
    if not (settings.tensorboard and group.leads):
        return Board()
    sampler = sample(plan=lambda _: (VIEWS, settings.image_size))
    return TensorBoard(run.path, clock.step, model, fixed_views(sampler))


def trained_parts(model: ClsClip) -> torch.nn.ModuleDict:
    """What is trained of a model; its weights have the names of ``ClsClip.head_state``."""
    parts: dict[str, torch.nn.Module | None] = {
        "projections": model.projections, "guidance": model.guidance, "decoder": model.decoder,
        "presence": model.presence, "match": model.match,
    }  # fmt: skip
    return torch.nn.ModuleDict({name: part for name, part in parts.items() if part is not None})


def _unfrozen(part: torch.nn.Module) -> list[torch.nn.Parameter]:
    """The weights of an encoder that ClsCLIP uses, set free."""
    parameters = [
        parameter for name, parameter in part.named_parameters()
        if not name.startswith("post_layernorm.")  # of the visual [CLS], which the word replaces
    ]  # fmt: skip
    for parameter in parameters:
        parameter.requires_grad_(True)
    return parameters


def _start(name: str, towers: ClipTowers, head: HeadSettings, *, given: bool) -> ClsClip:
    """A new head, or the one of a model; presence and match which that one lacks are new.

    Its masks follow edges as before, unless a radius was given.
    """
    if not name:
        return ClsClip(towers, head)
    model = load_model(find_model(name), towers)
    if not given:
        head = head.model_copy(update={"edge_radius": model.settings.edge_radius})
    changed = {
        "edge_radius": head.edge_radius,
        "presence": model.settings.presence or head.presence,
        "match": model.settings.match or head.match,
    }
    if model.settings.model_copy(update=changed) != head:
        raise InvalidConfigError(
            f"The head of '{name}' has another shape: {model.settings.model_dump()}. Ask for the "
            "same one, or start without --start."
        )
    further = ClsClip(towers, head)
    further.load_state_dict(model.head_state(), strict=False)
    return further


class HeadLoss:
    """Loss of a batch for the trained part of ClsCLIP.

    Parameters
    ----------
    model : ClsClip
    pairs : int
        Q, words asked of each image.
    """

    def __init__(self, model: ClsClip, pairs: int) -> None:
        self._model, self._pairs = model, pairs
        self._prompts = Prompts(model)

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of all (image, word) pairs of a batch: masks, the words' presence, and matches.

        Words without a mask only say that they are in the image.
        """
        device = next(self._model.decoder.parameters()).device
        dtype = fast_dtype(device)
        rng = np.random.default_rng((*batch.seed, 1))
        match = self._model.match
        compared = () if match is None else compared_words(batch, rng)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            texts = self._prompts([*batch.words, *compared], rng)
            text, others = texts[: len(batch.words)], texts[len(batch.words) :]
            encoded = self._model.encode(batch.images.to(device)).repeat(self._pairs)
            tokens = self._model.guide(encoded.shallow, text)
            logits, presence = self._model.read(tokens, encoded, text)
            fits = None if match is None else match(tokens[:, 1:], others)
        located, visible = batch.located, batch.masks.flatten(1).any(1) | ~batch.located
        masks, valid = batch.masks[located].to(device), batch.valid[located].to(device)
        losses = {"mask": mask_loss(logits[located.to(device)], masks, valid)}
        if presence is not None:
            losses["presence"] = seen_loss(presence, visible.to(device))
        if fits is not None:
            shown, hidden, somewhere = (
                each.to(device).repeat_interleave(self._pairs, 0)
                for each in match_targets(batch, compared)
            )
            losses["match"] = match_loss(fits, shown, hidden, somewhere)
        return losses
