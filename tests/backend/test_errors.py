from __future__ import annotations

import pytest

from clsclip import errors
from clsclip.errors import BackendError, ClsClipError, error_from_code

ALL = [kind for kind in vars(errors).values() if isinstance(kind, type)
       and issubclass(kind, ClsClipError)]  # fmt: skip


def test_codes_are_unique() -> None:
    assert len({kind.code for kind in ALL}) == len(ALL) > 15


@pytest.mark.parametrize("kind", ALL)
def test_every_error_survives_the_wire(kind: type[ClsClipError]) -> None:
    rebuilt = error_from_code(kind.code, "what happened")
    assert type(rebuilt) is kind
    assert rebuilt.message == "what happened"


@pytest.mark.parametrize("kind", ALL)
def test_http_status_is_an_error(kind: type[ClsClipError]) -> None:
    assert 400 <= kind.http_status < 600


def test_unknown_code_is_a_plain_error() -> None:
    assert type(error_from_code("of-a-later-version", "x")) is ClsClipError


def test_errors_of_the_client_have_a_common_base() -> None:
    clients = [kind for kind in ALL if kind.code.startswith("backend")]
    assert len(clients) == 4
    assert all(issubclass(kind, BackendError) for kind in clients)
