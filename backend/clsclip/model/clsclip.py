"""ClsCLIP: the text-side [CLS] replaces the visual [CLS] in shallow layers (section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from clsclip.errors import InvalidConfigError
from clsclip.model.clip import ClipTowers
from clsclip.model.config import HeadSettings
from clsclip.model.decoder import Decoder
from clsclip.model.guidance import VisualPrompts, new_guidance
from clsclip.model.match import Match
from clsclip.model.presence import Presence, gate


@dataclass(frozen=True)
class Encoded:
    """What the network knows of images before it reads a word.

    Attributes
    ----------
    shallow : Tensor, shape (B, 1 + m, D)
        Input of the first layer that a word guides: N1 (Eq. 5).
    detail : Tensor, shape (B, C, H / 2, W / 2), or None
        The decoder's look at the image itself, if it has one.
    grid : tuple of int
        Rows and columns of patches.
    """

    shallow: Tensor
    detail: Tensor | None
    grid: tuple[int, int]

    def repeat(self, words: int) -> Encoded:
        """Each image ``words`` times in a row."""
        detail = None if self.detail is None else self.detail.repeat_interleave(words, 0)
        return Encoded(self.shallow.repeat_interleave(words, 0), detail, self.grid)


class ClsClip(nn.Module):
    """Frozen CLIP towers with one projection per replaced layer and a decoder.

    Only the projections L^i, the decoder and, where there are such, the look at a word's presence
    and the match of patches and words are trained. Text guides the image, never the reverse. Where
    the settings ask for another guidance, nothing is replaced, and it is trained instead of the
    projections.

    Parameters
    ----------
    towers : ClipTowers
    settings : HeadSettings
    """

    any_object = True

    def __init__(self, towers: ClipTowers, settings: HeadSettings) -> None:
        super().__init__()
        depth = len(towers.layers)
        replaced = settings.replaced_layers if settings.guidance == "replace" else ()
        if replaced and replaced[-1] >= depth:
            raise InvalidConfigError(
                f"Layer {replaced[-1]} cannot be replaced: the visual encoder "
                f"has layers 0 to {depth - 1}."
            )
        if settings.image_size % towers.patch_size:
            raise InvalidConfigError(
                f"The image size {settings.image_size} is not a multiple of the patch size "
                f"{towers.patch_size}."
            )
        self.towers = towers
        self.settings = settings
        self.projections = nn.ModuleDict(
            {str(index): nn.Linear(towers.text_width, towers.width) for index in replaced}
        )
        self.guidance = new_guidance(towers, settings)
        self.decoder = Decoder(
            towers.width, settings.decoder_width, settings.decoder_heads,
            settings.decoder_layers, towers.patch_size, settings.detail_channels,
        )  # fmt: skip
        self.presence = (
            Presence(towers.width, settings.decoder_width) if settings.presence else None
        )
        self.match = Match(towers.width, towers.text_width) if settings.match else None

    @property
    def first_guided(self) -> int:
        """N1, the first layer that a word guides; the number of layers where there is none."""
        if isinstance(self.guidance, VisualPrompts):
            return 0
        return min(map(int, self.projections), default=len(self.towers.layers))

    def text_cls(self, words: Sequence[str], templates: bool = True) -> Tensor:
        """T^cls per word, the mean over the prompt templates or of the bare word.

        Returns
        -------
        Tensor, shape (K, d)
        """
        if not templates:
            return self.towers.text_cls(words)
        prompts = self.settings.prompt_templates
        texts = [template.format(word) for word in words for template in prompts]
        return self.towers.text_cls(texts).view(len(words), len(prompts), -1).mean(1)

    def encode(self, pixels: Tensor) -> Encoded:
        """Everything that does not depend on the word (Eq. 5).

        Encode an image once, then call :meth:`decode` for any number of words.

        Parameters
        ----------
        pixels : Tensor, shape (B, 3, H, W)
            RGB in [0, 1]; H and W are multiples of the patch size.

        Returns
        -------
        Encoded
        """
        tokens = self.towers.embed(pixels)
        for index in range(self.first_guided):
            tokens = self.towers.run_layer(index, tokens)
        side = self.towers.patch_size
        grid = (pixels.shape[2] // side, pixels.shape[3] // side)
        return Encoded(tokens, self.decoder.look(pixels), grid)

    def encode_beside(self, encoded: Encoded, pixels: Tensor) -> Encoded:
        """What this head knows of images that another one on the same towers has encoded."""
        return replace(encoded, detail=self.decoder.look(pixels))

    def patch_tokens(self, pixels: Tensor) -> Tensor:
        """Patch tokens that leave the last visual layer without a word, shape (B, m, D)."""
        return self.towers.patch_tokens(pixels)

    def guide(self, shallow: Tensor, text_cls: Tensor) -> Tensor:
        """Output of the last visual layer under the guidance of a word (Eq. 6 and 7).

        Parameters
        ----------
        shallow : Tensor, shape (B, 1 + m, D)
            From :meth:`encode`.
        text_cls : Tensor, shape (B, d)
            One word per image.

        Returns
        -------
        Tensor, shape (B, 1 + m, D)
        """
        tokens = shallow
        for index in range(self.first_guided, len(self.towers.layers)):
            if str(index) in self.projections:
                cls = self.projections[str(index)](text_cls).to(tokens.dtype)
                tokens = torch.cat([cls[:, None], tokens[:, 1:]], dim=1)
            elif isinstance(self.guidance, VisualPrompts):
                tokens = self.guidance.insert(index, tokens, text_cls)
            tokens = self.towers.run_layer(index, tokens)[:, : shallow.shape[1]]
        return tokens

    def decode(self, encoded: Encoded, text_cls: Tensor) -> Tensor:
        """Foreground logits, shape (B, H, W), of one word per encoded image (Eq. 6 to 8)."""
        return self.answer(encoded, text_cls)[0]

    def answer(self, encoded: Encoded, text_cls: Tensor) -> tuple[Tensor, Tensor | None]:
        """Foreground logits as :meth:`decode` gives them, and logits of each word's presence.

        Returns
        -------
        Tensor, shape (B, H, W)
        Tensor, shape (B,), or None
            None for a head without :class:`Presence`.
        """
        return self.read(self.guide(encoded.shallow, text_cls), encoded, text_cls)

    def read(
        self, tokens: Tensor, encoded: Encoded, text_cls: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """What :meth:`answer` gives, from the tokens that :meth:`guide` put out."""
        patches = tokens[:, 1:]
        weights = None
        if self.guidance is not None and not isinstance(self.guidance, VisualPrompts):
            weights = self.guidance(patches, text_cls, encoded.grid)
        logits: Tensor = self.decoder(patches, encoded.grid, encoded.detail, weights)
        if self.match is not None:
            logits = self.match.gate(logits, patches, text_cls, encoded.grid)
        if self.presence is None:
            return logits, None
        presence = self.presence(tokens)
        return gate(logits, presence), presence

    def forward(self, pixels: Tensor, text_cls: Tensor) -> Tensor:
        """Foreground logits of one word per image.

        Parameters
        ----------
        pixels : Tensor, shape (B, 3, H, W)
            RGB in [0, 1]; H and W are multiples of the patch size.
        text_cls : Tensor, shape (B, d)

        Returns
        -------
        Tensor, shape (B, H, W)
        """
        return self.decode(self.encode(pixels), text_cls)

    @property
    def image_size(self) -> int:
        """Side in pixels of the square that is read at once."""
        return self.settings.image_size

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return self.towers.patch_size

    @property
    def edge_radius(self) -> int:
        """Radius in pixels within which masks follow the edges of the image; 0: none."""
        return self.settings.edge_radius

    def head_state(self) -> dict[str, Tensor]:
        """Weights of the trained part only."""
        return {
            name: tensor
            for name, tensor in self.state_dict().items()
            if not name.startswith("towers.")
        }
