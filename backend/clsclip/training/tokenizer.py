"""A small byte-level BPE in CLIP's format, for CLIP models trained from scratch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final, cast

from tokenizers import Tokenizer, models, trainers
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

START: Final = "<|startoftext|>"
END: Final = "<|endoftext|>"


def train_tokenizer(texts: Iterable[str], vocabulary: int = 2048) -> CLIPTokenizer:
    """Learn merges from texts; normalisation and splitting are CLIP's.

    Parameters
    ----------
    texts : iterable of str
        What the model will read: class words in all spellings, in prompt templates.
    vocabulary : int
        Largest number of tokens. All bytes are among them, so every text can be encoded.

    Returns
    -------
    CLIPTokenizer
        The end-of-text token has the highest id, as in OpenAI's CLIP.
    """
    reference = CLIPTokenizer()
    backend = reference.backend_tokenizer
    learner = Tokenizer(models.BPE(unk_token=END, end_of_word_suffix="</w>"))
    learner.normalizer = backend.normalizer
    learner.pre_tokenizer = backend.pre_tokenizer
    alphabet = sorted(ByteLevel.alphabet())
    learner.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary - 2 - len(alphabet), initial_alphabet=alphabet,
            end_of_word_suffix="</w>", min_frequency=2, show_progress=False,
        ),
    )  # fmt: skip
    learned = json.loads(learner.to_str())["model"]
    merges = [tuple(pair) for pair in learned["merges"]]
    tokens = dict.fromkeys(alphabet)
    tokens |= dict.fromkeys(f"{letter}</w>" for letter in alphabet)
    tokens |= dict.fromkeys("".join(pair) for pair in merges)
    tokens |= dict.fromkeys((START, END))
    vocab = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=cast(Any, merges))
