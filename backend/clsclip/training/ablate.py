"""Train and measure the variants that Tables 1 to 3 of the paper compare.

Every variant gets the same data, budget and seeds. Each (variant, seed) has a run directory of its
own below the output, which is a model like any other; a variant that several tables share is
trained once. What was finished is never trained or measured again, so that a command that was
killed goes on where it was, and a further table or seed can be added later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, cast

from pydantic import Field, ValidationError

from clsclip.config import DetectorSettings, RegionMode, Settings
from clsclip.errors import CheckpointError, FileError, InvalidConfigError
from clsclip.model.checkpoint import read_tensors
from clsclip.model.clip import load_towers
from clsclip.model.config import CONFIG_FILE, WEIGHTS_FILE
from clsclip.model.files import read_json, write_atomically
from clsclip.regions.generators import Generators
from clsclip.training.ablation_tables import (
    ALL_TABLES,
    Measured,
    Spread,
    TableName,
    Variant,
    VariantResult,
    required_variants,
    table_markdown,
)
from clsclip.training.evaluate import evaluate
from clsclip.training.evaluate_settings import ANNOTATED, EvaluateSettings, plain
from clsclip.training.fit import FREE, FitSettings, fit
from clsclip.training.folds import fold_source, fold_words
from clsclip.training.run import RUN_FILE, require_same_settings
from clsclip.training.sources import (
    SCENES,
    find_sources,
    shares,
    training_sources,
    validation_folders,
)
from clsclip.wire import describe_validation

ABLATION_FILE: Final = "ablation.json"
TABLE_FILE: Final = "ablation.md"
FIGURES_FILE: Final = "figures.json"

NOT_ASKED: Final = (
    "guidance", "replaced_layers", "presence", "start", "encoder_rate", "text_rate", "text_steps",
    "description",
)  # fmt: skip
"""Fields of :class:`clsclip.training.fit.FitSettings` that a variant decides, or that no variant of
the paper has."""


class AblateSettings(FitSettings, DetectorSettings):
    """What a comparison of variants is asked for."""

    table: tuple[TableName, ...] = Field(
        ALL_TABLES,
        title="Tables",
        description="1: ways of using the text [CLS]; 2: visual prompts; 3: layers.",
        min_length=1,
    )
    seeds: int = Field(
        3, title="Seeds", description="Trainings per variant, from --seed upwards.", ge=1
    )
    limit: int | None = Field(
        None,
        title="Limit",
        description="Largest number of images to measure on, of each held-out part. Empty: as "
        "evaluate has it.",
        ge=1,
    )
    regions: str = Field(
        "none",
        title="Regions",
        description="Region proposals when it is measured, as evaluate takes them. none: one look "
        "at the whole image. The paper's tables are of ClsCLIP+, which has regions.",
    )


class RunFigures(Settings):
    """What was measured of one run, and how."""

    asked: dict[str, EvaluateSettings]
    weights: int
    parts: dict[str, Measured] = Field(description="By held-out part of the data.")


class Ablation(Settings):
    """Results so far."""

    tables: tuple[TableName, ...]
    settings: dict[str, Any] = Field(description="Of the last call.")
    depth: int = Field(description="Layers of the visual encoder.")
    variants: dict[str, VariantResult]


def ablate(
    settings: AblateSettings,
    output: Path,
    *,
    resume: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> str:
    """Train and measure what is not there yet.

    ``ablation.json`` and ``ablation.md`` in the output are renewed after every run.

    Parameters
    ----------
    settings : AblateSettings
    output : Path
        Folder of the run directories.
    resume : bool
        Go on with what is in the output, or add tables or seeds to it.
    tell : callable
        Takes a line of progress now and then.

    Returns
    -------
    str
        The tables that are in the output, in Markdown.

    Raises
    ------
    FileError, InvalidConfigError, InvalidWordError, CheckpointError, ModelUnavailableError
        Before anything is trained, if the data has no held-out part, there are not the region
        proposals to measure with, the encoder has too few layers, or the output holds results and
        ``resume`` is False; and as
        :func:`clsclip.training.fit.fit` and :func:`clsclip.training.evaluate.evaluate` raise them.
    """
    if not resume and any(output.glob(f"*/{RUN_FILE}")):
        raise FileError(
            f"'{output}' holds runs already. Give --resume to go on with them or to add tables or "
            "seeds, or another --output."
        )
    asked = _held_out(settings)
    _check_regions(settings, asked)
    depth = len(load_towers(settings.clip).layers)
    variants = required_variants(settings.table)
    for variant in variants:
        variant.replaced(depth)  # all fit, or nothing begins
    for seed in range(settings.seed, settings.seed + settings.seeds):
        for variant in variants:
            run = _run(output, variant, depth, seed)
            tell(f"{run.name}:")
            head = _head(settings, variant, depth, seed)
            if (run / CONFIG_FILE).exists():
                require_same_settings(run, head, FREE)
            else:
                fit(head, run, resume=True, tell=tell)
            _measure(run, asked, tell)
            _summarise(settings, output, depth, asked)
    return (output / TABLE_FILE).read_text()


def _run(output: Path, variant: Variant, depth: int, seed: int) -> Path:
    return output / f"{variant.name(depth)}_seed{seed}"


def _head(settings: AblateSettings, variant: Variant, depth: int, seed: int) -> FitSettings:
    """Settings of one run."""
    given = {
        name: getattr(settings, name)
        for name in FitSettings.model_fields
        if name not in NOT_ASKED and name in settings.model_fields_set
    }
    if variant.layers:
        given["replaced_layers"] = variant.replaced(depth)
    return FitSettings(**{**given, "guidance": variant.guidance, "seed": seed})


def _held_out(settings: AblateSettings) -> dict[str, EvaluateSettings]:
    """What is measured, by the name of its data; the model is still to be filled in."""
    if settings.dataset:
        # fetched and found now, not after the first training
        fold_source(
            settings.dataset, settings.fold, settings.data, "val", download=settings.download
        )
        name = f"{settings.dataset} fold {settings.fold}"
        return {
            name: _evaluation(
                settings, dataset=settings.dataset, fold=settings.fold, data=settings.data
            )
        }
    sources = training_sources(settings.data, settings.share, settings.seed)
    weights = dict(zip(sources, shares(sources, settings.share), strict=True))
    asked = {
        name: _evaluation(settings, data=str(folder), unseen=settings.unseen)
        for name, folder in validation_folders(Path(settings.data).expanduser()).items()
        if weights.get(name)
    }
    if weights.get(SCENES):
        asked[SCENES] = _evaluation(settings, data=SCENES, unseen=settings.unseen)
    if not asked:
        raise FileError(
            f"'{settings.data}' has no validation part to measure on. docs/training.md shows the "
            "layouts that have one; or add drawn scenes: --share scenes=1."
        )
    return asked


def _evaluation(settings: AblateSettings, **data: Any) -> EvaluateSettings:
    given = {
        **data, "limit": settings.limit, "regions": settings.regions, "detector": settings.detector,
        "whole": settings.regions == "none", "device": settings.device,
    }  # fmt: skip
    try:
        return plain(EvaluateSettings.model_validate(given))
    except ValidationError as error:
        raise InvalidConfigError(describe_validation(error)) from error


def _check_regions(settings: AblateSettings, asked: Mapping[str, EvaluateSettings]) -> None:
    """Raise what measuring would raise about region proposals."""
    for each in asked.values():
        if each.regions not in ANNOTATED:
            mode = cast(RegionMode, each.regions)
            words = _words(each)
            Generators(Path(), device=settings.device).check(mode, words, detector=each.detector)


def _words(asked: EvaluateSettings) -> tuple[str, ...]:
    """What a held-out part asks for; of drawn scenes, which no detector knows, nothing."""
    if asked.dataset:
        return fold_words(asked.dataset, asked.fold)[1]
    if asked.data == SCENES:
        return ()
    (source,) = find_sources(Path(asked.data), val=True).values()
    return tuple(source.words)


def _measure(run: Path, asked: Mapping[str, EvaluateSettings], tell: Callable[[str], None]) -> None:
    """Measure a run, unless it was measured in the same way before."""
    ours = _of_model(asked, run)
    found = read_json(run / FIGURES_FILE, RunFigures)
    if found is not None and found.asked == ours:
        return
    parts: dict[str, Measured] = {}
    for name, settings in ours.items():
        result = evaluate(settings)
        if result.per_class:
            parts[name] = Measured(miou=result.miou, fb_iou=result.fb_iou)
        if (unseen := result.parts.get("unseen")) is not None:
            parts[f"{name}, unseen"] = Measured(miou=unseen.miou, fb_iou=unseen.fb_iou)
        tell(f"{name}: mIoU {result.miou:.3f}, FB-IoU {result.fb_iou:.3f}")
    tensors = read_tensors(run / WEIGHTS_FILE)
    figures = RunFigures(
        asked=ours, weights=sum(tensor.numel() for tensor in tensors.values()), parts=parts
    )
    _write(run / FIGURES_FILE, figures.model_dump_json(indent=2) + "\n")


def _of_model(asked: Mapping[str, EvaluateSettings], model: Path) -> dict[str, EvaluateSettings]:
    return {name: each.model_copy(update={"model": str(model)}) for name, each in asked.items()}


def _summarise(
    settings: AblateSettings, output: Path, depth: int, asked: Mapping[str, EvaluateSettings]
) -> None:
    """Write the results so far of all tables that were ever asked for in this output.

    Runs that were measured in another way, or trained with other settings, are left out.
    """
    earlier = read_json(output / ABLATION_FILE, Ablation)
    tables = tuple(
        name
        for name in ALL_TABLES
        if name in (*settings.table, *(earlier.tables if earlier else ()))
    )
    variants = {}
    for variant in required_variants(tables):
        result = _result(settings, output, variant, depth, asked)
        if result is not None:
            variants[variant.name(depth)] = result
    ablation = Ablation(
        tables=tables, settings=settings.model_dump(mode="json"), depth=depth, variants=variants
    )
    parts = tuple(dict.fromkeys(part for each in variants.values() for part in each.summary))
    text = "\n\n".join(table_markdown(name, variants, depth, parts) for name in tables)
    _write(output / ABLATION_FILE, ablation.model_dump_json(indent=2) + "\n")
    _write(output / TABLE_FILE, text + "\n")


def _result(
    settings: AblateSettings, output: Path, variant: Variant, depth: int,
    asked: Mapping[str, EvaluateSettings],
) -> VariantResult | None:  # fmt: skip
    """What is there of a variant, over all its seeds; None if nothing is."""
    name = variant.name(depth)
    found: dict[int, RunFigures] = {}
    for file in output.glob(f"{name}_seed*/{FIGURES_FILE}"):
        seed = int(file.parent.name.removeprefix(f"{name}_seed"))
        figures = read_json(file, RunFigures)
        if figures is None or figures.asked != _of_model(asked, file.parent):
            continue
        try:
            require_same_settings(file.parent, _head(settings, variant, depth, seed), FREE)
        except CheckpointError:
            continue  # of another budget, say
        found[seed] = figures
    if not found:
        return None
    seeds = {seed: found[seed].parts for seed in sorted(found)}
    parts = dict.fromkeys(part for each in seeds.values() for part in each)
    return VariantResult(
        guidance=variant.guidance, replaced_layers=variant.replaced(depth),
        weights=next(iter(found.values())).weights, seeds=seeds,
        summary={
            part: Spread.of([each[part] for each in seeds.values() if part in each])
            for part in parts
        },
    )  # fmt: skip


def _write(file: Path, text: str) -> None:
    try:
        write_atomically(file, text.encode())
    except OSError as error:
        raise FileError(
            f"'{file}' cannot be written ({error}). Free space there and go on with --resume."
        ) from error
