"""ClsCLIP and ClsCLIP+: zero-shot segmentation with a typed class word.

``Predictor`` is imported on first use, so that the parts that cross the process boundary
(:mod:`clsclip.wire`, :mod:`clsclip.config`, :mod:`clsclip.errors`) never load torch.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clsclip.predict.predictor import Predictor
    from clsclip.segmentation import Segmentation

__version__ = version("napari-clsclip")
__all__ = ["Predictor", "Segmentation", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Predictor":
        from clsclip.predict.predictor import Predictor

        return Predictor
    if name == "Segmentation":
        from clsclip.segmentation import Segmentation

        return Segmentation
    raise AttributeError(f"module 'clsclip' has no attribute '{name}'")
