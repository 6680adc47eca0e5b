"""Segment images with a model: the one entry point of service, command line and Python."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from clsclip.config import DEFAULT_MODEL, RegionMode, SegmentSettings
from clsclip.errors import InvalidConfigError
from clsclip.model.checkpoint import model_version
from clsclip.model.device import choose_device, device_faults, fast_dtype
from clsclip.model.registry import find_model
from clsclip.predict.aggregation import look_inside, owners_of
from clsclip.predict.asked import Asked
from clsclip.predict.attention import attention_maps, attentive_towers, replaces_cls
from clsclip.predict.loaded_model import LoadedModel
from clsclip.predict.regions import ANY_OBJECT, Box, check_regions
from clsclip.predict.regions_used import regions_given, windows_used
from clsclip.predict.steps import Steps
from clsclip.predict.strips import WindowNetwork
from clsclip.predict.tiling import OVERLAP
from clsclip.predict.transforms import resize, to_rgb, to_tensor
from clsclip.predict.whole_image import WINDOWS_PER_BATCH, NetworkInput, look_at_image
from clsclip.regions.drawn import boxes_within
from clsclip.regions.generators import Generators, Proposals
from clsclip.segmentation import AttentionMaps, RegionUsed, Segmentation
from clsclip.typed_words import check_words
from clsclip.zoom import whole_image_zoom


class Predictor:
    """A loaded model that turns images and words into foreground probabilities.

    An image is encoded once up to the first replaced layer; each further word costs only the
    layers from there on, or with CLIPSeg its decoder. Words that the model was taught are read by
    heads of their own, see :mod:`clsclip.model.word_heads`. One predictor serves one thread at a
    time. A folder ``detector`` in the model directory is the detector that proposes regions when it
    is asked to (ClsCLIP+).

    Parameters
    ----------
    model : str
        Name of a model, or path of a model directory.
    device : str
        See :func:`clsclip.model.device.choose_device`.

    Raises
    ------
    UnknownModelError, ModelUnavailableError, CheckpointError, DeviceError

    Examples
    --------
    >>> from skimage.data import immunohistochemistry
    >>> from clsclip import Predictor
    >>> result = Predictor("mini").segment(immunohistochemistry(), words=["nucleus"])
    >>> result.labels(threshold=0.5).shape
    (512, 512)
    """

    def __init__(self, model: str = DEFAULT_MODEL, *, device: str = "auto") -> None:
        folder = find_model(model)
        self.name = model
        self.device = choose_device(device)
        self.dtype = fast_dtype(self.device)
        self.version = model_version(folder)
        self._loaded = LoadedModel(folder, model, self.device, self.dtype)
        self._model = self._loaded.network
        self._reads = NetworkInput(self._model.image_size, self._model.patch_size)
        self._generators = Generators(folder, device=str(self.device))

    def whole_image_zoom(self, shape: tuple[int, int]) -> float:
        """The zoom of a single look at a whole image of some rows and columns: plain ClsCLIP."""
        return whole_image_zoom(shape, self._reads.size)

    def teach(self, words: Sequence[str], head: Mapping[str, Tensor], version: str) -> None:
        """Answer for some words with another head on the same towers, such as one in training.

        Parameters
        ----------
        words, head
            As :meth:`clsclip.predict.loaded_model.LoadedModel.teach` takes them.
        version : str
            Names the new state of the model in its results.

        Raises
        ------
        InvalidConfigError
            If the model is no ClsCLIP.
        """
        self._loaded.teach(words, head)
        self.version = version

    def check_proposals(
        self, words: Sequence[str], regions: RegionMode, detector: str = ""
    ) -> None:
        """Raise what :meth:`segment` would raise about regions, whatever the image.

        Parameters
        ----------
        words, regions, detector
            As :meth:`segment` takes them.

        Raises
        ------
        InvalidConfigError, InvalidWordError, CheckpointError, ModelUnavailableError, DeviceError
            See :meth:`clsclip.regions.generators.Generators.check`.
        """
        self._generators.check(regions, words, detector=detector)

    def propose(
        self,
        image: NDArray[Any],
        words: Sequence[str],
        regions: RegionMode,
        *,
        contrast_limits: tuple[float, float] | None = None,
        detector: str = "",
    ) -> tuple[tuple[RegionUsed, ...], ...]:
        """Region proposals of every word, without a look inside them (P_k of section 3.4).

        Parameters
        ----------
        image, words, regions, contrast_limits, detector
            As :meth:`segment` takes them.

        Returns
        -------
        tuple of tuple of RegionUsed, length K
            Empty for a word that is to be looked for in the whole image.

        Raises
        ------
        InvalidImageError, InvalidWordError, InvalidConfigError, CheckpointError, DeviceError
        ModelUnavailableError
            As :meth:`segment`.
        """
        checked = check_words(tuple(words))
        rgb = to_rgb(image, contrast_limits)
        self._generators.check(regions, checked, detector=detector)
        if regions == "none":
            return ((),) * len(checked)
        proposals = self._propose(rgb, checked, regions, detector, (), Steps(None, None))
        return tuple(proposal.used for proposal in proposals)

    def segment(
        self,
        image: NDArray[Any],
        words: Sequence[str],
        *,
        contrast_limits: tuple[float, float] | None = None,
        zoom: float | None = None,
        templates: bool = True,
        regions: Mapping[str, Sequence[Box]] | RegionMode = "none",
        detector: str = "",
        drawn: Sequence[Box] = (),
        vouched: bool = False,
        progress: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Segmentation:
        """Foreground probability of every word at every pixel.

        Parameters
        ----------
        image : ndarray, shape (H, W), (H, W, 3) or (H, W, 4)
            bool, integer or floating point.
        words : sequence of str, length K
            What to segment, one class each.
        contrast_limits : tuple of float, optional
            Values shown as black and white; see :func:`clsclip.predict.transforms.to_rgb`.
        zoom : float, optional
            Model pixels per image pixel, also inside tiles; other regions have zooms of their
            own. None: chosen per word, see :mod:`clsclip.zoom`.
        templates : bool
            Average the text token over prompt templates.
        regions : mapping of str to sequence of Box, or one of RegionMode
            Region proposals of words: top, left, bottom, right in image pixels; or who proposes
            them, see :class:`clsclip.config.RegionSettings`. A word that has some is looked for
            inside them only, each one zoomed in, and every pixel takes the highest probability
            that a region gives it (Eq. 9, with the threshold left open). A word that has none is
            looked for in the whole image, also where a detector knows it and found nothing: by
            Eq. 9 its mask would be empty, and what the detector misses would be lost (ours).
            For the same reason ``auto`` looks at the whole image too where a detector proposes the
            regions, and takes the mean of both looks inside them.
            Tiles are the windows in which the whole image is looked at.
        detector : str
            Path of a detector, see :class:`clsclip.config.DetectorSettings`.
        drawn : sequence of Box
            Boxes that a person drew on this image, for ``regions="auto"``. If one word is asked
            for, the person vouches that they show it; of several words, nobody said which box
            shows which.
        vouched : bool
            A person says that every region shows its word. A pixel then takes the higher one of
            the probabilities of the word and of :data:`clsclip.predict.regions.ANY_OBJECT`, so
            that words which the model hardly knows get an outline too (ours). CLIPSeg has not
            learnt that word, and is asked for its own alone. In a region where neither is seen,
            the object is outlined by its colours, see :mod:`clsclip.predict.box_outline`.
        progress : callable, optional
            Called with (steps done, steps known so far). Proposing regions is a step per word.
        cancelled : callable, optional
            Asked between steps; an answer of True ends the work.

        Returns
        -------
        Segmentation

        Raises
        ------
        InvalidImageError, InvalidWordError, InvalidConfigError
            For input that cannot be segmented; the last two also if the regions that are asked
            for cannot be had.
        CheckpointError, ModelUnavailableError
            If a detector that is asked for cannot be opened.
        CancelledError
            If ``cancelled`` said so.
        DeviceError
            If the device runs out of memory.
        """
        started = time.perf_counter()
        checked = check_words(tuple(words))
        _check_zoom(zoom)
        rgb = to_rgb(image, contrast_limits)
        shape = (rgb.shape[0], rgb.shape[1])
        steps = Steps(progress, cancelled)
        mode = regions if isinstance(regions, str) else "none"
        self._generators.check(mode, checked, detector=detector, drawn=len(drawn) > 0)
        proposals: tuple[Proposals, ...] = ()
        if isinstance(regions, str):
            if mode != "none":
                proposals = self._propose(rgb, checked, mode, detector, drawn, steps)
                vouched = vouched or (len(checked) == 1 and proposals[0].drawn)
            regions = dict(zip(checked, (p.boxes for p in proposals), strict=False))
        proposed = check_regions(regions, checked, shape)
        used = [proposal.used for proposal in proposals]
        if proposed and not used:
            used = [regions_given(proposed.get(word, ())) for word in checked]
        with torch.inference_mode(), device_faults(self.device):
            pixels = to_tensor(rgb).to(self.device)
            asked = self._ask(checked, templates)
            vouches = vouched and self._model.any_object
            anything = self._ask([ANY_OBJECT] if vouches else [], templates)
            inside = {
                k: look_inside(
                    pixels,
                    boxes,
                    look=(asked.pick([k]) + anything).probabilities,
                    size=self._reads.size,
                    steps=steps,
                    owning=proposals[k].owning if proposals else None,
                    vouched=vouched,
                )
                for k, word in enumerate(checked)
                if (boxes := proposed.get(word))
            }
            around = {k for k in inside if proposals and proposals[k].around}
            free = [k for k in range(len(checked)) if k not in inside or k in around]
            whole = (
                look_at_image(pixels, asked.pick(free), zoom, self._reads, steps) if free else []
            )
            anywhere = dict(zip(free, whole, strict=True))
            probabilities = [
                inside[k].with_whole(anywhere[k][0] if k in around else None)
                if k in inside
                else anywhere[k][0]
                for k in range(len(checked))
            ]
        zooms = [inside[k].zoom if k in inside else anywhere[k][1] for k in range(len(checked))]
        for k, zoom_of in enumerate(zooms):
            if proposals and proposals[k].tiled:
                used[k] = windows_used(shape, self._reads.windows(shape, zoom_of))
        return Segmentation(
            probabilities=np.stack(probabilities),
            words=checked,
            model=self.name,
            model_version=self.version,
            zooms=tuple(zooms),
            seconds=time.perf_counter() - started,
            region_reasons=tuple(
                proposal.reason + (inside[k].reservation if k in inside else "")
                for k, proposal in enumerate(proposals)
            ),
            proposals=tuple(used),
            owners=owners_of(inside, (len(checked), *shape)),
        )

    @property
    def replaces_cls(self) -> bool:
        """Whether words replace the [CLS], so that there is an :meth:`attention` to show."""
        return replaces_cls(self._model)

    def attention(
        self,
        image: NDArray[Any],
        words: Sequence[str],
        *,
        contrast_limits: tuple[float, float] | None = None,
        zoom: float | None = None,
        templates: bool = True,
        layers: Sequence[int] = (),
        progress: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> AttentionMaps:
        """Where the [CLS] looks, with its own and with each word's [CLS] (Figure 3).

        Parameters
        ----------
        image, words, contrast_limits, templates, progress, cancelled
            As :meth:`segment` takes them.
        zoom : float, optional
            Model pixels per image pixel. None: one look at the whole image, as in the paper.
        layers : sequence of int
            Layers of the visual encoder, counted from 0. Empty: the last one (ours, see
            :mod:`clsclip.predict.attention`).

        Returns
        -------
        AttentionMaps

        Raises
        ------
        InvalidConfigError
            If no word replaces the [CLS] of this model, or it has no such layer; also for a zoom
            out of range.
        InvalidImageError, InvalidWordError, CancelledError, DeviceError
        """
        checked = check_words(tuple(words))
        _check_zoom(zoom)
        towers, chosen = attentive_towers(self._model, self.name, layers)
        rgb = to_rgb(image, contrast_limits)
        with torch.inference_mode(), device_faults(self.device):
            original, replaced = attention_maps(
                to_tensor(rgb).to(self.device),
                self._ask(checked, templates),
                towers,
                chosen,
                zoom or self.whole_image_zoom((rgb.shape[0], rgb.shape[1])),
                self._reads,
                Steps(progress, cancelled),
            )
        return AttentionMaps(checked, chosen, original, replaced)

    def embedding(
        self, image: NDArray[Any], contrast_limits: tuple[float, float] | None = None
    ) -> NDArray[np.float32]:
        """What an image looks like to the visual encoder, whatever word is asked (ours).

        Parameters
        ----------
        image, contrast_limits
            As :meth:`segment` takes them.

        Returns
        -------
        ndarray of float32, shape (D,)
            Mean of the patch tokens that leave the last layer, of unit length. Images that look
            alike have a large dot product.

        Raises
        ------
        InvalidImageError, DeviceError
        """
        rgb = to_rgb(image, contrast_limits)
        with torch.inference_mode(), device_faults(self.device):
            side = (self._reads.size, self._reads.size)
            pixels = resize(to_tensor(rgb).to(self.device), side).to(self.dtype)
            mean = F.normalize(self._model.patch_tokens(pixels)[0].float().mean(0), dim=0)
        vector: NDArray[np.float32] = mean.cpu().numpy()
        return vector

    def window_network(self, words: Sequence[str], *, templates: bool = True) -> WindowNetwork:
        """The network with some words, for passes over images that are too large to hold.

        Parameters
        ----------
        words, templates
            As :meth:`segment` takes them.

        Raises
        ------
        InvalidWordError
        """
        with torch.inference_mode(), device_faults(self.device):
            asked = self._ask(check_words(tuple(words)), templates)

        def probabilities(crops: Tensor) -> Sequence[Tensor]:
            with torch.inference_mode(), device_faults(self.device):
                return list(asked.probabilities(crops))

        size = self._reads.size
        return WindowNetwork(
            image_size=size, patch_size=self._reads.patch, overlap=int(size * OVERLAP),
            batch=WINDOWS_PER_BATCH, device=self.device, probabilities=probabilities,
        )  # fmt: skip

    def _propose(
        self, rgb: NDArray[np.float32], words: Sequence[str], mode: RegionMode, detector: str,
        drawn: Sequence[Box], steps: Steps,
    ) -> tuple[Proposals, ...]:  # fmt: skip
        """Regions of each word."""
        boxes = boxes_within(drawn, (rgb.shape[0], rgb.shape[1])) if len(drawn) else None
        proposals = []
        steps.expect(len(words))
        with device_faults(self.device):
            for word in words:
                steps.check()
                proposals.append(
                    self._generators.propose(
                        rgb, word, mode, detector=detector, drawn=boxes, checkpoint=steps.check
                    )
                )
                steps.done()
        return tuple(proposals)

    def _ask(self, words: Sequence[str], templates: bool) -> Asked:
        return self._loaded.ask(words, templates)


def _check_zoom(zoom: float | None) -> None:
    limits = SegmentSettings.model_fields["zoom"].metadata
    largest = float(next(limit.le for limit in limits if hasattr(limit, "le")))
    if zoom is not None and not 0.0 < zoom <= largest:
        raise InvalidConfigError(f"The zoom is {zoom}; it must be above 0 and at most {largest:g}.")
