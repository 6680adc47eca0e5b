"""Model directories: ``config.json`` and ``model.safetensors``, written atomically, read strictly.

A model directory holds the trained part of one ClsCLIP (projections and decoder) and says to
which CLIP weights it belongs: a hub name, a folder, or a folder inside the model directory. The
SHA-256 of those base weights is stored, so that a head is never put on other towers. The run
directory of a training that has ended is a model directory with further files in it. Words that
the model was taught have heads of their own in files beside it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from clsclip.errors import CheckpointError, FileError
from clsclip.model.clip import ClipTowers, load_towers
from clsclip.model.clipseg_config import clipseg_version
from clsclip.model.clsclip import ClsClip
from clsclip.model.config import (
    CONFIG_FILE,
    DETECTOR_FILE,
    DETECTOR_FOLDER,
    WEIGHTS_FILE,
    BaseWeights,
    ModelConfig,
    is_clipseg,
    read_config,
)
from clsclip.model.files import flush
from clsclip.model.word_heads import WORD_HEAD_FILE, WordHead, head_like

BASE_FOLDER: Final = "clip"


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Fill a temporary folder that takes the place of ``path`` only when all went well.

    Raises
    ------
    FileError
        If the folder cannot be written, or ``path`` is a folder that is not a model directory.
    """
    path = path.absolute()
    if path.exists() and not (path / CONFIG_FILE).is_file() and any(path.iterdir()):
        raise FileError(f"'{path}' holds other files; give an empty or new folder.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise FileError(f"'{path}' cannot be written ({error}).") from error
    try:
        yield draft
        draft.chmod(0o755)
        old = draft.with_name(f"{draft.name}-old")
        if path.exists():
            path.rename(old)
        draft.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def save_model(
    model: ClsClip,
    path: str | Path,
    *,
    source: str,
    revision: str | None = None,
    description: str = "",
    training: Mapping[str, Any] | None = None,
    bundle: torch.dtype | None = None,
    word_heads: Sequence[WordHead] = (),
    words: Sequence[str] = (),
) -> None:
    """Write a model directory.

    Parameters
    ----------
    model : ClsClip
    path : str or Path
        The directory; an older model there is replaced at once or not at all.
    source, revision : str
        Where the CLIP weights came from; ``source`` is ignored with ``bundle``.
    description : str
        One line for lists of models.
    training : mapping, optional
        JSON values that say what trained it.
    bundle : torch.dtype, optional
        Write the CLIP weights too, in this format (and the head likewise), so that the directory
        is complete by itself. The model in memory is rounded to it, so that its fingerprint is
        the one of the files.
    word_heads : sequence of WordHead
        Heads of taught words.
    words : sequence of str
        Canonical words that training read.

    Raises
    ------
    FileError
    """
    with atomic_directory(Path(path)) as draft:
        _write_model(
            model, draft, source, revision, description, training, bundle,
            word_heads=word_heads, words=words,
        )  # fmt: skip


def save_run_model(
    model: ClsClip,
    run: Path,
    *,
    source: str,
    revision: str | None = None,
    description: str = "",
    training: Mapping[str, Any] | None = None,
    bundle: torch.dtype | None = None,
    clip: Path | None = None,
    word_heads: Sequence[WordHead] = (),
    words: Sequence[str] = (),
) -> None:
    """Make a run directory a model directory; its other files stay.

    ``config.json``, without which a folder is no model directory, comes last, so that a folder
    that looks like a model is a complete one.

    Parameters
    ----------
    model, source, revision, description, training, bundle, word_heads, words
        As :func:`save_model` takes them.
    run : Path
        Exists.
    clip : Path, optional
        Folder of the CLIP weights, to be copied into the directory as it is.

    Raises
    ------
    FileError
        If it cannot be written.
    """
    try:
        draft = Path(tempfile.mkdtemp(prefix=".model-", dir=run))
    except OSError as error:
        raise FileError(f"'{run}' cannot be written ({error}).") from error
    try:
        _write_model(
            model, draft, source, revision, description, training, bundle, clip, word_heads, words
        )
        (run / CONFIG_FILE).unlink(missing_ok=True)
        if (draft / BASE_FOLDER).is_dir():
            shutil.rmtree(run / BASE_FOLDER, ignore_errors=True)
            (draft / BASE_FOLDER).rename(run / BASE_FOLDER)
        for file in (WEIGHTS_FILE, *map(WORD_HEAD_FILE.format, range(1, len(word_heads) + 1))):
            (draft / file).replace(run / file)
        (draft / CONFIG_FILE).replace(run / CONFIG_FILE)
    except OSError as error:
        raise _unwritable(run, error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_model(
    model: ClsClip, draft: Path, source: str, revision: str | None, description: str,
    training: Mapping[str, Any] | None, bundle: torch.dtype | None, clip: Path | None = None,
    word_heads: Sequence[WordHead] = (), words: Sequence[str] = (),
) -> None:  # fmt: skip
    """Fill a folder that nobody reads yet."""
    try:
        if bundle is not None:
            for part in (model, *(each.head for each in word_heads)):
                part.to(bundle)
            model.towers.clip.save_pretrained(draft / BASE_FOLDER)
            model.towers.tokenizer.save_pretrained(draft / BASE_FOLDER)
            source, revision = BASE_FOLDER, None
        elif clip is not None:
            shutil.copytree(clip, draft / BASE_FOLDER)
            source, revision = BASE_FOLDER, None
        config = ModelConfig(
            description=description,
            base=BaseWeights(source=source, revision=revision, sha256=model.towers.fingerprint()),
            head=model.settings,
            words=tuple(words),
            word_heads=tuple(each.words for each in word_heads),
            training=dict(training or {}),
        )
        _write_head(model, draft / WEIGHTS_FILE)
        for k, each in enumerate(word_heads, start=1):
            _write_head(each.head, draft / WORD_HEAD_FILE.format(k))
        (draft / CONFIG_FILE).write_text(config.model_dump_json(indent=2) + "\n")
        for file in draft.rglob("*"):
            if file.is_file():
                file.chmod(0o644)
                flush(file)
    except (OSError, safetensors.SafetensorError) as error:
        raise _unwritable(draft.parent, error) from error


def _write_head(head: ClsClip, file: Path) -> None:
    save_file({name: t.contiguous().cpu() for name, t in head.head_state().items()}, file)


def _unwritable(folder: Path, error: Exception) -> FileError:
    if isinstance(error, shutil.Error):  # of copying a folder: a list of (from, to, why)
        error = OSError(error.args[0][0][2])
    return FileError(
        f"A model cannot be written into '{folder}' ({error}). Free space there, or choose another "
        "folder."
    )


def load_model(path: str | Path, towers: ClipTowers | None = None) -> ClsClip:
    """Read a model directory, in float32 and evaluation mode.

    Parameters
    ----------
    path : str or Path
    towers : ClipTowers, optional
        Towers that are loaded already; their fingerprint must be the stored one.

    Raises
    ------
    CheckpointError
        If a file is missing, truncated or foreign, a tensor is missing, superfluous or
        misshapen, or the base weights are not those that the head was trained on.
    ModelUnavailableError
        If the base weights come from a hub that cannot be reached.
    """
    folder = Path(path)
    config = read_config(folder)
    if towers is None:
        inside = folder / config.base.source
        towers = load_towers(inside if inside.is_dir() else config.base.source,
                             config.base.revision)  # fmt: skip
    found = towers.fingerprint()
    if found != config.base.sha256:
        raise CheckpointError(
            f"The head in '{folder}' belongs to other CLIP weights than "
            f"'{config.base.source}' holds now (SHA-256 {config.base.sha256[:12]}… expected, "
            f"{found[:12]}… found). Restore those weights or train the head again."
        )
    model = ClsClip(towers, config.head)
    state = _read_head(folder / WEIGHTS_FILE, model)
    model.load_state_dict(state, strict=False)
    return model.eval()


def load_word_heads(path: str | Path, model: ClsClip) -> tuple[WordHead, ...]:
    """Read the heads of taught words of a model directory.

    Parameters
    ----------
    path : str or Path
    model : ClsClip
        Of the same directory; the heads share its towers, device and number format.

    Raises
    ------
    CheckpointError
        If a file is missing, truncated or does not fit.
    """
    folder = Path(path)
    return tuple(
        WordHead(words, head_like(model, _read_head(folder / WORD_HEAD_FILE.format(k), model)))
        for k, words in enumerate(read_config(folder).word_heads, start=1)
    )


def _read_head(file: Path, model: ClsClip) -> dict[str, Tensor]:
    """Weights of a head of the shape of a model's, float32."""
    state = read_tensors(file)
    expected = model.head_state()
    faults = [
        f"{name}: {'missing' if name not in state else tuple(state[name].shape)}"
        for name in sorted(expected)
        if name not in state or state[name].shape != expected[name].shape
    ] + [f"{name}: not of this model" for name in sorted(set(state) - set(expected))]
    if faults:
        raise CheckpointError(
            f"'{file}' does not fit its {CONFIG_FILE}: {'; '.join(faults[:5])}. "
            "Get the complete model directory again."
        )
    return {name: tensor.float() for name, tensor in state.items()}


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Read a safetensors file onto the CPU.

    Raises
    ------
    CheckpointError
    """
    try:
        return load_file(file)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"'{file}' cannot be read ({error}). It is missing or truncated; copy it again."
        ) from error


def model_version(folder: Path) -> str:
    """Twelve hexadecimal digits that identify the weights of a model directory of either kind.

    A detector in it counts, for its boxes decide where a word is looked for.

    Raises
    ------
    CheckpointError
    """
    version = clipseg_version(folder) if is_clipseg(folder) else _weights_version(folder)
    detector = folder / DETECTOR_FOLDER / DETECTOR_FILE  # it holds the hash of the weights
    if not detector.is_file():
        return version
    return hashlib.sha256(version.encode() + detector.read_bytes()).hexdigest()[:12]


def _weights_version(folder: Path) -> str:
    """The same of a ClsCLIP without its detector; how its outlines are drawn counts."""
    config = read_config(folder)
    digest = hashlib.sha256(config.base.sha256.encode())
    digest.update((folder / WEIGHTS_FILE).read_bytes())
    if config.head.edge_radius:
        digest.update(f"edge radius {config.head.edge_radius}".encode())
    for k, words in enumerate(config.word_heads, start=1):
        digest.update(json.dumps(words).encode())
        digest.update((folder / WORD_HEAD_FILE.format(k)).read_bytes())
    return digest.hexdigest()[:12]
