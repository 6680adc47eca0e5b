"""Every sample of the manifest must open, offline, and say which word to type."""

from __future__ import annotations

import socket
from typing import Any

import numpy as np
import pytest
from npe2 import PluginManager, PluginManifest

from clsclip.typed_words import parse_words

MANIFEST = PluginManifest.from_distribution("napari-clsclip")
SAMPLES = MANIFEST.contributions.sample_data or []


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a sample asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_samples_are_those_that_the_bundled_model_knows() -> None:
    assert [sample.key for sample in SAMPLES] == ["cell", "tissue"]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.key)
def test_sample_is_one_image_layer(sample: Any, npe2pm: PluginManager) -> None:
    npe2pm.register(MANIFEST)
    (layer,) = sample.open(_registry=npe2pm.commands)
    data, options, kind = layer
    assert kind == "image"
    assert options == {"name": sample.key}
    assert data.dtype == np.uint8
    assert min(data.shape[:2]) >= 300
    assert data.ndim == 2 or data.shape[2] == 3
    assert data.std() > 10


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.key)
def test_display_name_names_words_that_can_be_typed(sample: Any) -> None:
    _, marker, rest = sample.display_name.partition("(type: ")
    assert marker
    assert rest.endswith(")")
    assert parse_words(rest.removesuffix(")"))
