"""Values of a command's options from a TOML file: ``--config FILE``.

A key is the name of an option, with underscores or hyphens: ``learning_rate = 3e-4``. Options on
the command line win, also over keys that stand for the same thing: ``--steps`` takes the place of
``epochs``.
"""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from clsclip.errors import FileError, InvalidConfigError

OPTION: Final = "config"
"""Name of the option among the parsed arguments."""


def add_config_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--config FILE``."""
    parser.add_argument(
        f"--{OPTION}",
        type=Path,
        metavar="FILE",
        help="TOML file with values of the options below, under their names (learning_rate = 3e-4);"
        " what is given here as well wins.",
    )


def read_settings(
    file: Path, model: type[BaseModel], given: Collection[str], without: Collection[str] = ()
) -> dict[str, Any]:
    """Values of a file.

    Parameters
    ----------
    file : Path
    model : type of pydantic model
        What the keys must be fields of. It may have ``alternatives``, groups of fields of which
        one stands for the others.
    given : collection of str
        Fields that have their values already: these and their alternatives are left out.
    without : collection of str
        Fields that the command has no options for.

    Returns
    -------
    dict of str to value
        Not checked beyond the names.

    Raises
    ------
    FileError
        If the file cannot be read.
    InvalidConfigError
        If it is no TOML, or has other keys.
    """
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(f"The configuration file '{file}' cannot be read ({error}).") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidConfigError(f"'{file}' is no TOML: {error}.") from error
    found: dict[str, Any] = {}
    known = [field for field in model.model_fields if field not in without]
    for key, value in content.items():
        name = key.replace("-", "_")
        if name not in known:
            alike = get_close_matches(name, known, n=1)
            meant = f" Did you mean '{alike[0]}'?" if alike else ""
            raise InvalidConfigError(
                f"'{file}': the command has no option '{key}'.{meant} --help lists all of them."
            )
        if name in found:
            raise InvalidConfigError(f"'{file}': '{name}' is given twice. Leave one of them out.")
        found[name] = value
    replaced = set(given)
    for group in getattr(model, "alternatives", ()):
        if replaced.intersection(group):
            replaced.update(group)
    return {name: value for name, value in found.items() if name not in replaced}
