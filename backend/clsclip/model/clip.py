"""The frozen CLIP towers, from transformers, run layer by layer.

``hidden_states[k]`` of transformers is the *input* of layer ``k``; here too, every index names
the layer whose input is meant, counted from 0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from clsclip.errors import CheckpointError, ModelUnavailableError

# the constants of every OpenAI CLIP; transformers.image_utils has the same
_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
_STD: Final = (0.26862954, 0.26130258, 0.27577711)


def normalise(pixels: Tensor, mean: Sequence[float] = _MEAN, std: Sequence[float] = _STD) -> Tensor:
    """Shift and scale RGB values in [0, 1], shape (B, 3, H, W), by default as CLIP was trained."""
    middle = torch.tensor(mean, dtype=pixels.dtype, device=pixels.device)
    spread = torch.tensor(std, dtype=pixels.dtype, device=pixels.device)
    return (pixels - middle[:, None, None]) / spread[:, None, None]


def tokenise(
    tokenizer: CLIPTokenizer, texts: Sequence[str], longest: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Ids of the tokens of texts, and which of them are no padding, both of shape (K, length)."""
    tokens = tokenizer(
        list(texts), padding=True, truncation=True, return_tensors="pt", max_length=longest
    )
    return tokens["input_ids"].to(device), tokens["attention_mask"].to(device)


def encode_text(clip: CLIPModel, tokenizer: CLIPTokenizer, texts: Sequence[str]) -> Tensor:
    """End-of-text token of each text after the final LayerNorm, shape (K, d) (Eq. 1)."""
    longest = cast(Any, clip.config).text_config.max_position_embeddings
    ids, mask = tokenise(tokenizer, texts, longest, clip.device)
    output = clip.text_model(input_ids=ids, attention_mask=mask)
    return cast(Tensor, output.pooler_output)


class ClipTowers(nn.Module):
    """Text and visual encoder of a CLIP model, frozen.

    Parameters
    ----------
    clip : CLIPModel
        Any CLIP of transformers with a ViT visual encoder.
    tokenizer : CLIPTokenizer
        The tokenizer that belongs to it.
    """

    def __init__(self, clip: CLIPModel, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.clip = clip
        clip.requires_grad_(False)
        self.train(False)
        self.tokenizer = tokenizer

    def train(self, mode: bool = True) -> ClipTowers:
        """Stay in evaluation mode: the towers are never trained here."""
        return super().train(False)

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return int(cast(Any, self.clip.config).vision_config.patch_size)

    @property
    def width(self) -> int:
        """D, channels of the visual encoder."""
        return int(cast(Any, self.clip.config).vision_config.hidden_size)

    @property
    def text_width(self) -> int:
        """d, channels of the text encoder before its projection."""
        return int(cast(Any, self.clip.config).text_config.hidden_size)

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
        return encode_text(self.clip, self.tokenizer, words)

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
        tokens = visual.embeddings(normalise(pixels), interpolate_pos_encoding=True)
        return cast(Tensor, visual.pre_layrnorm(tokens))

    def run_layer(self, index: int, tokens: Tensor) -> Tensor:
        """Output of layer ``index`` for its input, both of shape (B, 1 + m, D) (Eq. 3)."""
        return cast(Tensor, self.layers[index](tokens, attention_mask=None))

    def patch_tokens(self, pixels: Tensor) -> Tensor:
        """E_N without a word: patch tokens that leave the last layer, shape (B, m, D)."""
        tokens = self.embed(pixels)
        for index in range(len(self.layers)):
            tokens = self.run_layer(index, tokens)
        return tokens[:, 1:]

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
    # a hub model without safetensors is read by PyTorch's restricted unpickler, which runs no code
    formats: dict[str, Any] = {"use_safetensors": True} if local else {"weights_only": True}
    try:
        clip, report = cast(Any, CLIPModel).from_pretrained(
            source, dtype=torch.float32, output_loading_info=True, **formats, **options
        )
        tokenizer = CLIPTokenizer.from_pretrained(source, **options)
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
    if faults := loading_faults(report):
        raise CheckpointError(
            f"The CLIP weights of '{source}' do not fit their configuration: {faults}. "
            "Get the complete model again."
        )
    return ClipTowers(clip, tokenizer)


def loading_faults(report: Mapping[str, Any]) -> dict[str, list[str]]:
    """What transformers reports of tensors that were missing, superfluous or misshapen.

    Files of older versions hold the numbers of the positions too, which mean nothing.
    """
    found = {
        key: sorted(str(name) for name in names if not str(name).endswith("position_ids"))
        for key, names in report.items()
        if names
    }
    return {key: names for key, names in found.items() if names}


def random_towers(config: CLIPConfig, tokenizer: CLIPTokenizer) -> ClipTowers:
    """Untrained towers of a configuration, for tests and timing."""
    return ClipTowers(CLIPModel(config), tokenizer)
