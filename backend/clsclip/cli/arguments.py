"""Command-line options from the fields of a settings model.

A field ``max_request_mb: int`` becomes ``--max-request-mb``, a boolean a pair of flags
``--templates`` and ``--no-templates``, a tuple of any length an option that may be repeated, and
a tuple of fixed length an option with as many values. Defaults and help texts are the fields';
pydantic reads and checks the values. Some commands also read them from a file, see
:mod:`clsclip.cli.config_file`.
"""

from __future__ import annotations

import argparse
import types
from collections.abc import Collection
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from clsclip.cli.config_file import OPTION, read_settings
from clsclip.errors import InvalidConfigError

_M = TypeVar("_M", bound=BaseModel)


def add_settings(
    parser: argparse.ArgumentParser, model: type[BaseModel], *, bare: Collection[str] = (),
    without: Collection[str] = (), required: bool = True,
) -> None:  # fmt: skip
    """Add one option per field of a settings model, as a group named by its docstring.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Must not have options of these names.
    model : type of pydantic model
        Fields may be booleans, numbers, strings, paths, literals, tuples of these, and optional.
    bare : collection of str
        Fields whose option may be given without a value, and then means the default.
    without : collection of str
        Fields that get no option here.
    required : bool
        Whether fields without a default must be given as options; if not, a file may have them.
    """
    title = (model.__doc__ or model.__name__).strip().partition("\n")[0].rstrip(".")
    group = parser.add_argument_group(title)
    for name, field in model.model_fields.items():
        if name in without:
            continue
        optional = {"nargs": "?", "const": field.default} if name in bare else {}
        needed = required and field.is_required()
        group.add_argument(
            _option(name), dest=name, required=needed, **_argument(name, field), **optional
        )


def settings_from(
    args: argparse.Namespace, model: type[_M], *, without: Collection[str] = ()
) -> _M:
    """Read a settings model from parsed arguments; what was not given keeps its default.

    Values of a file that ``--config`` names come between the two; ``without`` is as for
    :func:`add_settings`.

    Raises
    ------
    InvalidConfigError
        If a value is not allowed; the message names the option, or the file and its key.
    """
    given = {name: value for name, value in vars(args).items() if name in model.model_fields}
    file = getattr(args, OPTION, None)
    filed = {} if file is None else read_settings(file, model, given, without)
    try:
        return model.model_validate({**filed, **given})
    except ValidationError as error:
        described = []
        for fault in error.errors():
            name = str((*fault["loc"], "")[0])
            text = f"{fault['msg'].removeprefix('Value error, ')}."
            if fault["type"] == "missing":
                text = f"{_option(name)} is missing."
            elif name:
                origin = f"'{file}': {name} =" if name in filed else _option(name)
                text = f"{origin} {fault['input']}: {text}"
            described.append(text)
        raise InvalidConfigError(" ".join(described)) from error


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _argument(name: str, field: FieldInfo) -> dict[str, Any]:
    """Keyword arguments of ``add_argument`` for a field."""
    argument: dict[str, Any] = {
        "default": argparse.SUPPRESS,
        "help": _help(field),
    }
    kind = _without_none(field.annotation)
    members = get_args(kind)
    if kind is bool:
        argument["action"] = argparse.BooleanOptionalAction
        return argument
    argument["metavar"] = name.upper()
    if get_origin(kind) is Literal:
        argument["choices"] = members
        argument["metavar"] = "{" + ",".join(map(str, members)) + "}"
    elif get_origin(kind) is tuple and members[-1] is Ellipsis:
        argument["action"] = "append"
        argument["metavar"] = name.upper().removesuffix("S")
    elif get_origin(kind) is tuple:
        argument["nargs"] = len(members)
    return argument


def _without_none(annotation: Any) -> Any:
    """Read ``X`` out of ``X | None``."""
    if get_origin(annotation) in (Union, types.UnionType):
        others = [member for member in get_args(annotation) if member is not types.NoneType]
        if len(others) == 1:
            return others[0]
    return annotation


def option_help(model: type[BaseModel], name: str) -> str:
    """Help text of a field, for an option of another name or form."""
    return _help(model.model_fields[name])


def _help(field: FieldInfo) -> str:
    text = field.description or field.title or ""
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    if default is not None and default != ():
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
        text = f"{text} (default: {shown})"
    return text.replace("%", "%%")
