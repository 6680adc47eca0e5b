"""A training run on disk: its configuration, its metrics, and the state to go on from.

``run.json`` is written once. ``metrics.jsonl`` gains a line per report. ``state.safetensors`` is
replaced every checkpoint, so that a run that was killed goes on from the last one. In the end the
trained model joins them. Nothing is pickled.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from clsclip.config import DeviceSettings, Settings
from clsclip.errors import CheckpointError, FileError
from clsclip.model.config import CONFIG_FILE
from clsclip.model.files import write_atomically
from clsclip.model.run_state import METRICS_FILE
from clsclip.wire import describe_validation

RUN_FILE: Final = "run.json"
STATE_FILE: Final = "state.safetensors"

_UNREADABLE: Final = (OSError, SafetensorError, RuntimeError, KeyError, TypeError, ValueError)


class BudgetSettings(DeviceSettings):
    """How long a run trains, and how it learns.

    Attributes
    ----------
    alternatives : tuple of tuple of str
        Settings that stand for each other: one that is given on the command line takes the place
        of all of its kind in a configuration file.
    """

    alternatives: ClassVar[tuple[tuple[str, ...], ...]] = (("steps", "minutes", "epochs"),)

    minutes: float = Field(
        30.0, title="Minutes", description="Training time; the learning rate ends with it.", gt=0
    )
    steps: int = Field(
        0, title="Steps", description="Optimizer steps, instead of minutes; 0: by time.", ge=0
    )
    learning_rate: float = Field(1e-3, title="Learning rate", description="Peak of AdamW's.", gt=0)
    seed: int = Field(0, title="Seed", description="Of weights, crops and words.", ge=0)


class TrainingSettings(BudgetSettings):
    """What a training run on data folders is asked for."""

    data: str = Field(
        title="Data", description="Folder of data folders; docs/training.md lists the formats."
    )
    share: tuple[str, ...] = Field(
        (),
        title="Share",
        description="FOLDER=NUMBER: share of a data folder in the batches (default 1).",
    )
    unseen: str = Field(
        "",
        title="Unseen words",
        description="Words whose masks and boxes are withheld: with commas, or a .txt file with "
        "one per line.",
    )


@dataclass
class Clock:
    """How far a run is, over all its sessions.

    Attributes
    ----------
    step : int
        Optimizer steps taken.
    seconds : float
        Time trained.
    batches : int
        Batches since the last report.
    losses : dict of str to float
        Sums of their losses.
    """

    step: int = 0
    seconds: float = 0.0
    batches: int = 0
    losses: dict[str, float] = field(default_factory=dict)

    def add(self, losses: Mapping[str, float]) -> None:
        """Count the losses of a batch."""
        self.batches += 1
        for name, loss in losses.items():
            self.losses[name] = self.losses.get(name, 0.0) + loss

    def forget(self) -> None:
        """Begin the next report."""
        self.batches, self.losses = 0, {}

    def part(self, settings: BudgetSettings) -> float:
        """How much of the run is over, 0 to 1 (or above, where time ran on)."""
        if settings.steps:
            return self.step / settings.steps
        return self.seconds / (settings.minutes * 60)


class Run:
    """A run directory.

    Parameters
    ----------
    path : Path
        Created if it does not exist.
    settings : Settings
        What the run was asked for. An existing run must have been asked for the same.
    resume : bool
        Go on with an existing run instead of refusing it.
    writes : bool
        Whether anything is written or checked. Of several processes, only the leading one does.
    free : collection of str
        Settings that may be others when the run goes on, for they do not change what it learns.

    Raises
    ------
    FileError
        If the folder holds a run and ``resume`` is False, holds another model, or cannot be
        written.
    CheckpointError
        If the existing run has other settings, or its files cannot be read.
    """

    def __init__(
        self,
        path: Path,
        settings: Settings,
        *,
        resume: bool,
        writes: bool = True,
        free: Collection[str] = (),
    ) -> None:
        self.path, self._writes, self._free = path, writes, free
        if writes:
            self._begin(settings, resume)

    def _begin(self, settings: Settings, resume: bool) -> None:
        path = self.path
        file = path / RUN_FILE
        if file.exists():
            if not resume:
                raise FileError(
                    f"'{path}' holds a run already. Give --resume to go on with it, or another "
                    "--output."
                )
            require_same_settings(path, settings, self._free)
        elif (path / CONFIG_FILE).exists():
            raise FileError(f"'{path}' holds a model that no run wrote. Give another --output.")
        try:
            path.mkdir(parents=True, exist_ok=True)
            text = settings.model_dump_json(indent=2) + "\n"
            write_atomically(file, text.encode())
        except OSError as error:
            raise FileError(f"The run directory '{path}' cannot be written ({error}).") from error

    def report(self, **values: float | int | str) -> None:
        """Append one line to ``metrics.jsonl``.

        Raises
        ------
        FileError
        """
        if not self._writes:
            return
        line = json.dumps({"time": round(time.time(), 1), **values}) + "\n"
        try:
            with (self.path / METRICS_FILE).open("a") as stream:
                stream.write(line)
        except OSError as error:
            raise self._full(METRICS_FILE, error) from error

    def forget_after(self, step: int) -> None:
        """Drop the reports of steps that are taken again, for they came after the checkpoint.

        Raises
        ------
        FileError
        """
        file = self.path / METRICS_FILE
        if not self._writes or not file.exists():
            return
        try:
            lines = file.read_bytes().splitlines(keepends=True)
            kept = [line for line in lines if _step(line) <= step]
            if len(kept) < len(lines):
                write_atomically(file, b"".join(kept))
        except OSError as error:
            raise self._full(METRICS_FILE, error) from error

    def save_state(
        self, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, clock: Clock
    ) -> None:
        """Replace the checkpoint by the present state of the trained weights and optimizer.

        Raises
        ------
        FileError
            If it cannot be written; the last checkpoint stays.
        """
        if not self._writes:
            return
        tensors = {
            f"{name}/{key}": value.detach().cpu().contiguous()
            for name, module in modules.items()
            for key, value in module.state_dict().items()
        }
        for index, parameter in enumerate(_parameters(optimizer)):
            for key, value in optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer/{index}/{key}"] = (
                    torch.as_tensor(value)
                    .detach()
                    .cpu()
                    .clone(memory_format=torch.contiguous_format)
                )
        metadata = {
            "step": str(clock.step), "seconds": repr(clock.seconds),
            "batches": str(clock.batches), "losses": json.dumps(clock.losses),
        }  # fmt: skip
        try:
            write_atomically(self.path / STATE_FILE, save(tensors, metadata=metadata))
        except OSError as error:
            raise self._full(STATE_FILE, error) from error

    def _full(self, name: str, error: OSError) -> FileError:
        return FileError(
            f"'{self.path / name}' cannot be written ({error}). Free space there and continue "
            "from the last checkpoint (--resume on the command line)."
        )

    def load_state(
        self, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer
    ) -> Clock:
        """Put the last checkpoint into the weights and the optimizer.

        Returns
        -------
        Clock
            Of the checkpoint; at zero if there is none.

        Raises
        ------
        CheckpointError
        """
        file = self.path / STATE_FILE
        if not file.exists():
            return Clock()
        try:
            tensors, metadata = _load(file, modules)
            for index, parameter in enumerate(_parameters(optimizer)):
                state: dict[str, Any] = _below(f"optimizer/{index}/", tensors)
                if state:
                    # where the optimizer would have made them: its count of steps in main memory
                    optimizer.state[parameter] = {
                        key: value if key == "step" else value.to(parameter.device)
                        for key, value in state.items()
                    }
            return Clock(
                int(metadata["step"]), float(metadata["seconds"]),
                int(metadata["batches"]), json.loads(metadata["losses"]),
            )  # fmt: skip
        except _UNREADABLE as error:
            raise CheckpointError(
                f"'{file}' is not a checkpoint of this run ({error}). Remove it to start anew."
            ) from error


def _step(line: bytes) -> float:
    """Optimizer step that a report is about; beyond all of them for a line that was cut off."""
    try:
        return float(json.loads(line).get("step", 0)) if line.endswith(b"\n") else math.inf
    except ValueError:
        return math.inf


def require_same_settings(path: Path, settings: Settings, free: Collection[str] = ()) -> None:
    """Refuse a run directory whose run was asked for something else; nothing is written.

    Parameters
    ----------
    path : Path
        Run directory.
    settings : Settings
    free : collection of str
        Settings that may be others.

    Raises
    ------
    CheckpointError
        If they are others, or cannot be read.
    """
    file = path / RUN_FILE
    try:
        stored = type(settings).model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        detail = describe_validation(error) if isinstance(error, ValidationError) else error
        raise CheckpointError(f"'{file}' cannot be read: {detail}") from error
    theirs, ours = stored.model_dump(), settings.model_dump()
    other = {key: theirs[key] for key in ours if key not in free and theirs[key] != ours[key]}
    if other:
        raise CheckpointError(
            f"The run in '{path}' was started with other settings: {other}. Give the same ones to "
            "go on, or begin another run (with another --output on the command line)."
        )


def load_weights(path: Path, modules: Mapping[str, nn.Module]) -> None:
    """Put the weights of another run's last checkpoint into modules of the same shapes.

    Parameters
    ----------
    path : Path
        Run directory.
    modules : mapping of str to Module
        Under the names that the run gave them.

    Raises
    ------
    CheckpointError
        If there is no checkpoint, or it holds other modules or shapes.
    """
    try:
        _load(path / STATE_FILE, modules)
    except _UNREADABLE as error:
        raise CheckpointError(
            f"'{path}' holds no checkpoint of a run with these settings ({error}). Give the "
            "directory of a run of the same kind and size."
        ) from error


def _load(file: Path, modules: Mapping[str, nn.Module]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Fill the modules; returns all tensors and the notes of the file."""
    with safe_open(file, framework="pt") as opened:
        metadata: dict[str, str] = opened.metadata()
        tensors: dict[str, Tensor] = {k: opened.get_tensor(k) for k in opened.keys()}  # noqa: SIM118
    for name, module in modules.items():
        module.load_state_dict(_below(f"{name}/", tensors))
    return tensors, metadata


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
