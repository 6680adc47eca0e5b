"""The frozen CLIP towers, from transformers, run layer by layer.

``hidden_states[k]`` of transformers is the *input* of layer ``k``; here too, every index names
the layer whose input is meant, counted from 0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTokenizerFast
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from clsclip.errors import CheckpointError, ModelUnavailableError


class ClipTowers(nn.Module):
    """Text and visual encoder of a CLIP model, frozen.

    Parameters
    ----------
    clip : CLIPModel
        Any CLIP of transformers with a ViT visual encoder.
    tokenizer : CLIPTokenizerFast
        The tokenizer that belongs to it.
    """

    def __init__(self, clip: CLIPModel, tokenizer: CLIPTokenizerFast) -> None:
        super().__init__()
        self.clip = clip.requires_grad_(False).eval()
        self.tokenizer = tokenizer
        self.register_buffer("mean", torch.tensor(OPENAI_CLIP_MEAN).view(3, 1, 1), False)
        self.register_buffer("std", torch.tensor(OPENAI_CLIP_STD).view(3, 1, 1), False)

    def train(self, mode: bool = True) -> ClipTowers:
        """Stay in evaluation mode: the towers are never trained here."""
        return cast(ClipTowers, super().train(False))

    @property
    def config(self) -> CLIPConfig:
        """Configuration of both towers."""
        return self.clip.config

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return int(self.clip.config.vision_config.patch_size)

    @property
    def layers(self) -> nn.ModuleList:
        """The N layers of the visual encoder."""
        return cast(nn.ModuleList, self.clip.vision_model.encoder.layers)

    def text_cls(self, words: Sequence[str]) -> Tensor:
        """T^cls of each text: its end-of-text token, before the text projection (Eq. 1).

        Parameters
        ----------
        words : sequence of str, length K

        Returns
        -------
        Tensor, shape (K, d)
            After the final LayerNorm of the text transformer.
        """
        tokens = self.tokenizer(
            list(words), padding=True, truncation=True, max_length=self._max_tokens,
            return_tensors="pt",
        )  # fmt: skip
        device = next(self.clip.parameters()).device
        output = self.clip.text_model(
            input_ids=tokens["input_ids"].to(device),
            attention_mask=tokens["attention_mask"].to(device),
        )
        return cast(Tensor, output.pooler_output)

    @property
    def _max_tokens(self) -> int:
        return int(self.clip.config.text_config.max_position_embeddings)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Shift and scale RGB values in [0, 1], shape (B, 3, H, W), as CLIP was trained."""
        return (pixels - cast(Tensor, self.mean)) / cast(Tensor, self.std)

    def embed(self, pixels: Tensor) -> Tensor:
        """Input of layer 0: [CLS] and patch tokens with positions (Eq. 2).

        Parameters
        ----------
        pixels : Tensor, shape (B, 3, H, W)
            RGB in [0, 1]; H and W are multiples of :attr:`patch_size`. Position embeddings are
            interpolated bicubically where the size is not the pre-training size.

        Returns
        -------
        Tensor, shape (B, 1 + m, D), m = H/p * W/p
            Token 0 is [CLS].
        """
        visual = self.clip.vision_model
        tokens = visual.embeddings(self.normalise(pixels), interpolate_pos_encoding=True)
        return cast(Tensor, visual.pre_layrnorm(tokens))

    def run_layer(self, index: int, tokens: Tensor) -> Tensor:
        """Output of layer ``index`` for its input, both of shape (B, 1 + m, D) (Eq. 3)."""
        return cast(Tensor, self.layers[index](tokens, attention_mask=None))

    def fingerprint(self) -> str:
        """SHA-256 of all weights as float32, independent of the file format they came in."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.clip.state_dict().items()):
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            values = tensor.detach().to("cpu", torch.float32).contiguous()
            digest.update(values.numpy().data)
        return digest.hexdigest()


def load_towers(source: str | Path, revision: str | None = None) -> ClipTowers:
    """Load CLIP from a local folder or, by its name, from the Hugging Face hub.

    Parameters
    ----------
    source : str or Path
        A folder as ``CLIPModel.save_pretrained`` writes it (with its tokenizer), or a name such
        as ``openai/clip-vit-base-patch16``.
    revision : str, optional
        Branch, tag or commit of a hub model.

    Raises
    ------
    ModelUnavailableError
        If the hub cannot be reached or has no such model.
    CheckpointError
        If the folder is no CLIP model, or tensors are missing, superfluous or misshapen.
    """
    local = Path(source).is_dir()
    options: dict[str, Any] = {"local_files_only": True} if local else {"revision": revision}
    try:
        clip, report = CLIPModel.from_pretrained(
            source, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **options
        )
        tokenizer = CLIPTokenizerFast.from_pretrained(source, **options)
    except Exception as error:
        if local:
            raise CheckpointError(
                f"'{source}' does not hold a readable CLIP model "
                f"({type(error).__name__}: {error}). It needs config.json, model.safetensors and "
                "the tokenizer's files, as CLIPModel.save_pretrained writes them."
            ) from error
        if isinstance(error, OSError):
            raise ModelUnavailableError(
                f"The CLIP weights '{source}' could not be had: they are not in the local cache "
                "and the Hugging Face hub did not answer or has no such model. Connect to the "
                "network once, or copy the model's folder to this machine and give its path, "
                f"or use the bundled model 'mini'. ({error})"
            ) from error
        raise
    faults = {key: sorted(report[key]) for key in report if report[key]}
    if faults:
        raise CheckpointError(
            f"The CLIP weights of '{source}' do not fit their configuration: {faults}. "
            "Get the complete model again."
        )
    return ClipTowers(clip, tokenizer)


def random_towers(config: CLIPConfig, tokenizer: CLIPTokenizerFast) -> ClipTowers:
    """Untrained towers of a configuration, for tests and timing."""
    return ClipTowers(CLIPModel(config), tokenizer)
