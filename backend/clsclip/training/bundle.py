"""Make one self-contained folder of a trained model and the CLIP weights below it."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from clsclip.config import Settings
from clsclip.errors import InvalidConfigError, UnknownModelError
from clsclip.model.checkpoint import load_model, load_word_heads, model_version, save_model
from clsclip.model.clsclip import ClsClip
from clsclip.model.config import DETECTOR_FOLDER, ModelConfig, read_config
from clsclip.model.registry import find_model
from clsclip.model.run_state import METRICS_FILE
from clsclip.regions.detector_config import detector_folder
from clsclip.regions.yolo import YoloDetector
from clsclip.training.run import RUN_FILE


class BundleSettings(Settings):
    """What to bundle."""

    model: str = Field(title="Model", description="Name or path of the trained model.")
    output: str = Field(title="Output", description="Folder to write; a model there is replaced.")
    dtype: Literal["bfloat16", "float16", "float32"] = Field(
        "bfloat16", title="Format", description="Number format of the weights."
    )
    description: str = Field("", title="Description", description="One line for lists of models.")
    detector: str = Field(
        "",
        title="Detector",
        description="Detector directory to put into the folder. Empty: the one that the model "
        "brings, if any.",
    )
    average: str = Field(
        "",
        title="Average",
        description="Model with a head of the same shape, such as the one that this one went on "
        "from: the weights of both heads are averaged, and those of the encoders if they were "
        "trained.",
    )
    edge_radius: int | None = Field(
        None,
        title="Edge radius",
        description="Radius, in pixels of the network's input, of a guided filter by which masks "
        "follow the edges of the image; 0: none. Empty: as the model has it.",
        ge=0,
        le=64,
    )
    match_scale: float | None = Field(
        None,
        title="Match scale",
        description="Of a model with --match: factor of the logits of its comparison of patches "
        "and words before they lower a mask. Empty: as it was learnt.",
        gt=0,
    )
    match_shift: float | None = Field(
        None,
        title="Match shift",
        description="What is added to them; the lower, the better a patch must fit the word to be "
        "marked. Empty: as it was learnt.",
    )
    commit: str = Field("", title="Commit", description="Commit of the code that trained it.")


def bundle(settings: BundleSettings) -> Path:
    """Write the folder; its ``config.json`` names the recipes of head and CLIP.

    Returns
    -------
    Path
    """
    folder = find_model(settings.model)
    config = read_config(folder)
    recipe = _recipe(config)
    if settings.commit:
        recipe["commit"] = settings.commit
    output = Path(settings.output)
    model, words = load_model(folder), config.words
    if settings.average:
        older = find_model(settings.average)
        _average(model, load_model(older), settings, taught=bool(config.word_heads))
        recipe["averaged_with"] = model_version(older)
        words = tuple(sorted({*words, *read_config(older).words}))
    if settings.edge_radius is not None:
        model.settings = model.settings.model_copy(update={"edge_radius": settings.edge_radius})
    if given := _set_match(model, settings):
        recipe["match"] = given
    with tempfile.TemporaryDirectory() as scratch:  # what is replaced may be where it comes from
        detector = _detector(settings.detector, folder, Path(scratch))
        save_model(
            model, output, source="", training=recipe,
            description=settings.description or config.description,
            bundle=getattr(torch, settings.dtype), word_heads=load_word_heads(folder, model),
            words=words,
        )  # fmt: skip
        if detector is not None:
            shutil.copytree(detector, output / DETECTOR_FOLDER)
    return output


def _set_match(model: ClsClip, settings: BundleSettings) -> dict[str, float]:
    """Give the comparison of patches and words the numbers that were asked for.

    Returns
    -------
    dict of str to float
        Those numbers, by their names in :class:`clsclip.model.match.Match`.

    Raises
    ------
    InvalidConfigError
        If the model compares nothing.
    """
    asked = {"scale": settings.match_scale, "shift": settings.match_shift}
    given = {name: value for name, value in asked.items() if value is not None}
    if given and model.match is None:
        raise InvalidConfigError(
            f"'{settings.model}' compares no patches with words: --match-scale and --match-shift "
            "have no meaning for it. Leave them out, or train it with fit --match."
        )
    for name, value in given.items():
        getattr(model.match, name).data.fill_(value)
    return given


def _detector(given: str, model: Path, scratch: Path) -> Path | None:
    """A copy of the detector that is to be bundled: a given one, else the model's own.

    Raises
    ------
    CheckpointError
        If it is none, or not whole.
    """
    folder = detector_folder(Path(given).expanduser()) if given else model / DETECTOR_FOLDER
    if not given and not folder.is_dir():
        return None
    YoloDetector(folder, device="cpu")
    return Path(shutil.copytree(folder, scratch / DETECTOR_FOLDER))


def _average(model: ClsClip, other: ClsClip, settings: BundleSettings, *, taught: bool) -> None:
    """Give a model the mean of its weights and those of another one; presence and match may be new.

    Training that goes on with other data forgets some of what it knew; the mean of the weights
    before and after keeps most of both (Wortsman et al., Robust fine-tuning of zero-shot models,
    CVPR 2022).

    Parameters
    ----------
    model, other : ClsClip
        ``model`` is changed.
    settings : BundleSettings
    taught : bool
        Whether ``model`` has words with heads of their own, which need its encoder as it is.

    Raises
    ------
    InvalidConfigError
        If there is no mean of the two.
    """
    any_of = {"presence": False, "match": False, "edge_radius": 0}
    shapes = (each.settings.model_copy(update=any_of) for each in (model, other))
    if len(set(shapes)) > 1:
        raise InvalidConfigError(
            f"The heads of '{settings.model}' and '{settings.average}' have other shapes: they "
            "cannot be averaged."
        )
    if model.towers.fingerprint() != other.towers.fingerprint():
        _average_encoders(model, other, settings, taught=taught)
    _take_mean(model, model.head_state(), other.head_state())


def _average_encoders(
    model: ClsClip, other: ClsClip, settings: BundleSettings, *, taught: bool
) -> None:
    """The same for the encoders, if the CLIPs differ in nothing else."""
    mine, others = (each.towers.clip.state_dict() for each in (model, other))
    trained = {name for name in mine if name.startswith(("vision_model.", "text_model."))}
    if (
        {name: tensor.shape for name, tensor in mine.items()}
        != {name: tensor.shape for name, tensor in others.items()}
        or not all(torch.equal(mine[name], others[name]) for name in mine.keys() - trained)
        or model.towers.tokenizer.get_vocab() != other.towers.tokenizer.get_vocab()
    ):  # fmt: skip
        raise InvalidConfigError(
            f"'{settings.model}' and '{settings.average}' belong to different CLIPs: they cannot "
            "be averaged. Only what fit trains of their encoders may differ (--encoder-rate, "
            "--text-rate)."
        )
    if taught:
        raise InvalidConfigError(
            f"'{settings.model}' was taught words that need its encoders as they are: they cannot "
            f"be averaged with those of '{settings.average}'. Average first, and teach then."
        )
    _take_mean(model.towers.clip, {k: mine[k] for k in trained}, {k: others[k] for k in trained})


def _take_mean(part: nn.Module, mine: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> None:
    """Give a part the mean of its weights and others of the same names."""
    means = {
        name: (weights + others[name]) / 2
        for name, weights in mine.items() if name in others and weights.is_floating_point()
    }  # fmt: skip
    part.load_state_dict(means, strict=False)


def _pretraining(run: Path) -> list[dict[str, Any]]:
    """Recipes of a pre-training and of those that it went on from, the first one first."""
    recipes: list[dict[str, Any]] = []
    while (run / RUN_FILE).is_file():
        recipe = json.loads((run / RUN_FILE).read_text())
        metrics = run / METRICS_FILE  # missing where a run was stopped before its first report
        reports = metrics.read_text().splitlines() if metrics.is_file() else []
        last = json.loads(reports[-1]) if reports else {"step": 0, "seconds": 0.0}
        recipes.insert(0, {**recipe, "steps": last["step"], "seconds": last["seconds"]})
        if not recipe.get("start"):
            break
        run = Path(recipe["start"]).expanduser()
    return recipes


def _recipe(config: ModelConfig) -> dict[str, Any]:
    """How a model came about: pre-training of its CLIP, and its heads, the first one first.

    A head may have gone on from one that was bundled, whose recipe is then the beginning.
    """
    if "heads" in config.training:
        return dict(config.training)
    heads, bundled = [config.training], dict[str, Any]()
    while not bundled and (start := heads[0].get("start")):
        try:
            older = read_config(find_model(start)).training
        except UnknownModelError:  # removed since
            break
        if "heads" in older:
            bundled = older
        else:
            heads.insert(0, older)
    clip = heads[0].get("clip", config.base.source)
    return {
        "pretraining": _pretraining(Path(clip).parent) or bundled.get("pretraining", []),
        "heads": [*_bundled_heads(bundled), *heads],
    }


def _bundled_heads(recipe: dict[str, Any]) -> list[dict[str, Any]]:
    """Heads of a bundled model, each with the commit of its code; the last may be a mean."""
    heads = [{"commit": recipe.get("commit", ""), **head} for head in recipe.get("heads", ())]
    if heads and "averaged_with" in recipe:
        heads[-1]["averaged_with"] = recipe["averaged_with"]
    return heads
