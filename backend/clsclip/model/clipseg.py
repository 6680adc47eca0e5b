"""CLIPSeg (Lueddecke and Ecker, CVPR 2022), the rival of Tables 4 and 5, from transformers.

A frozen CLIP, some of whose layers a small decoder reads under the guidance of a word: the word
scales and shifts the decoder's channels (FiLM) and never reaches the encoder. Layers are run one
by one as in :mod:`clsclip.model.clip`, since transformers' own forward reads square images only,
and encodes an image anew for each word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from transformers import CLIPSegForImageSegmentation, CLIPTokenizer

from clsclip.errors import CheckpointError
from clsclip.model.clip import loading_faults, normalise, tokenise
from clsclip.model.clipseg_config import ClipSegConfig, clipseg_fault, read_clipseg_config
from clsclip.model.config import WEIGHTS_FILE

TEMPLATES: Final = ("a photo of a {}.", "a photograph of a {}.", "an image of a {}.", "{}.")
"""Sentences that CLIPSeg was trained with; the mean of their embeddings is asked (ours)."""


@dataclass(frozen=True)
class Activations:
    """What CLIPSeg knows of images before it reads a word.

    Attributes
    ----------
    reduced : tuple of Tensor, each of shape (B, 1 + m, R)
        Outputs of the layers that the decoder reads, in its R channels, the last layer first.
    grid : tuple of int
        Rows and columns of patches.
    """

    reduced: tuple[Tensor, ...]
    grid: tuple[int, int]


class ClipSeg(nn.Module):
    """CLIPSeg as a :class:`clsclip.model.network.Network`; nothing of it is ever trained here.

    Parameters
    ----------
    model : CLIPSegForImageSegmentation
    tokenizer : CLIPTokenizer
        The tokenizer that belongs to it.
    config : ClipSegConfig
        How images become its input.

    Raises
    ------
    CheckpointError
        If the input is not a number of patches, or the decoder puts out masks of another size.
    """

    any_object = False
    edge_radius = 0

    def __init__(
        self, model: CLIPSegForImageSegmentation, tokenizer: CLIPTokenizer, config: ClipSegConfig
    ) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.config = config
        self.requires_grad_(False)
        self.eval()
        if config.image_size % self.patch_size:
            raise CheckpointError(
                f"The CLIPSeg reads images of {config.image_size} pixels a side, which is not a "
                f"multiple of its patches of {self.patch_size}."
            )
        strides = [
            layer.stride[0]
            for layer in model.decoder.transposed_convolution.modules()
            if isinstance(layer, nn.ConvTranspose2d)
        ]
        scale = 1
        for stride in strides:
            scale *= stride
        if scale != self.patch_size:
            raise CheckpointError(
                f"The CLIPSeg's decoder makes {scale} x {scale} pixels of each patch of "
                f"{self.patch_size} x {self.patch_size}; they must be as many."
            )

    @property
    def image_size(self) -> int:
        """Side in pixels of the square that is read at once."""
        return self.config.image_size

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return int(self._settings.vision_config.patch_size)

    @property
    def _settings(self) -> Any:
        """The configuration of transformers, which types none of its parts."""
        return cast(Any, self.model.config)

    def text_cls(self, words: Sequence[str], templates: bool = True) -> Tensor:
        """Embedding of each word: its end-of-text token, projected.

        Parameters
        ----------
        words : sequence of str, length K
        templates : bool
            The mean over :data:`TEMPLATES`, not of the bare word.

        Returns
        -------
        Tensor, shape (K, P)
        """
        sentences = TEMPLATES if templates else ("{}",)
        texts = [sentence.format(word) for word in words for sentence in sentences]
        longest = self._settings.text_config.max_position_embeddings
        ids, mask = tokenise(self.tokenizer, texts, longest, self.model.device)
        output = self.model.clip.get_text_features(input_ids=ids, attention_mask=mask)
        return cast(Tensor, output.pooler_output).view(len(words), len(sentences), -1).mean(1)

    def encode(self, pixels: Tensor) -> Activations:
        """Everything that does not depend on the word.

        Parameters
        ----------
        pixels : Tensor, shape (B, 3, H, W)
            RGB in [0, 1]; H and W are multiples of the patch size. Position embeddings are
            interpolated bicubically.

        Returns
        -------
        Activations
        """
        wanted = tuple(self._settings.extract_layers)
        tokens, outputs = self._embed(pixels), {}
        for index, layer in enumerate(self._layers[: max(wanted) + 1]):
            tokens = layer(tokens, attention_mask=None)
            outputs[index] = tokens
        reduced = tuple(
            reduce(outputs[index])
            for reduce, index in zip(self.model.decoder.reduces, reversed(wanted), strict=True)
        )
        side = self.patch_size
        return Activations(reduced, (pixels.shape[2] // side, pixels.shape[3] // side))

    def encode_beside(self, encoded: Activations, pixels: Tensor) -> Activations:
        """The same, for nothing but the word differs: there are no heads of taught words."""
        return encoded

    def decode(self, encoded: Activations, text_cls: Tensor) -> Tensor:
        """Foreground logits, shape (B, H, W), of one word per encoded image.

        Parameters
        ----------
        encoded : Activations
        text_cls : Tensor, shape (B, P)
            From :meth:`text_cls`.
        """
        decoder = self.model.decoder
        values = torch.zeros_like(encoded.reduced[0])
        for place, (activation, layer) in enumerate(
            zip(encoded.reduced, decoder.layers, strict=True)
        ):
            values = values + activation
            if place == decoder.conditional_layer:
                scale, shift = decoder.film_mul(text_cls), decoder.film_add(text_cls)
                values = values * scale[:, None] + shift[:, None]
            values = layer(values, attention_mask=None)
        maps = values[:, 1:].transpose(1, 2).reshape(len(values), -1, *encoded.grid)
        return cast(Tensor, decoder.transposed_convolution(maps))[:, 0]

    def patch_tokens(self, pixels: Tensor) -> Tensor:
        """Patch tokens that leave the last layer, whatever the word; shape (B, m, D)."""
        tokens = self._embed(pixels)
        for layer in self._layers:
            tokens = layer(tokens, attention_mask=None)
        return tokens[:, 1:]

    @property
    def _layers(self) -> nn.ModuleList:
        return cast(nn.ModuleList, self.model.clip.vision_model.encoder.layers)

    def _embed(self, pixels: Tensor) -> Tensor:
        """Input of layer 0, shape (B, 1 + m, D)."""
        visual = self.model.clip.vision_model
        values = normalise(pixels, self.config.mean, self.config.std)
        tokens = visual.embeddings(values, interpolate_pos_encoding=True)
        return cast(Tensor, visual.pre_layrnorm(tokens))


def load_clipseg(folder: Path) -> ClipSeg:
    """Read CLIPSeg from a folder, in float32 and evaluation mode; nothing is fetched.

    Parameters
    ----------
    folder : Path
        See :func:`clsclip.model.clipseg_config.read_clipseg_config`.

    Raises
    ------
    CheckpointError
        If a file is missing or broken, or tensors are missing, superfluous or misshapen.
    """
    if fault := clipseg_fault(folder):
        raise CheckpointError(fault)
    # without safetensors, PyTorch's restricted unpickler reads the weights, which runs no code
    safe = any(folder.glob(f"{WEIGHTS_FILE}*"))
    try:
        model, report = cast(Any, CLIPSegForImageSegmentation).from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, local_files_only=True,
            use_safetensors=safe, weights_only=True,
        )  # fmt: skip
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise CheckpointError(
            f"'{folder}' does not hold a readable CLIPSeg model ({type(error).__name__}: {error}). "
            "Get the complete model again."
        ) from error
    if faults := loading_faults(report):
        raise CheckpointError(
            f"The CLIPSeg weights in '{folder}' do not fit their configuration: {faults}. Get the "
            "complete model again."
        )
    return ClipSeg(model, tokenizer, read_clipseg_config(folder))
