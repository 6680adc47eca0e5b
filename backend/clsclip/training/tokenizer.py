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


EVERYDAY_WORDS: Final = tuple(
    """
    animal ant apple arm asteroid axon bag ball banana bark basket bat beach beak bear bed bee
    beetle berry bicycle bird boat body bone book bottle bowl box branch bread brick bridge brush
    bucket bud building bus bush butterfly button cable cake camel camera candle car carpet cat
    cattle ceiling chain chair cheese chicken child chimney church circle clock cloth cloud coast
    coat coffee coin computer corn cow crack crater cross crowd crystal cup curtain dam deer desk
    dish dog door drop duck ear earth edge egg elephant eye face factory farm feather fence field
    finger fire fish flag floor flower foam foot forest fork fox frog fruit galaxy garden gate
    giraffe glass glove goat grain grape grass gravel ground guitar hair hammer hand hat head heart
    helicopter hill hole horse house ice insect island jar key keyboard kite knife ladder lake lamp
    leaf leg lemon letter lid line lion lip mango map meat metal mirror moon mountain mouse mouth
    mushroom nail neck needle nest net nose ocean onion orange oven owl paint pan panda paper park
    path pattern pen pencil phone photo piano pig pillow pipe pizza plane planet plant plastic plate
    pole pond pot potato rabbit rail rain ring river road rock roof room root rope rose sail sand
    screen screw sea seat seed shadow sheep shell ship shirt shoe shop sign skin sky sleeve snake
    snow soil solar spider spoon square stair star statue stem stick stone street sugar sun sweater
    table tail tank tape tent text tile tire tomato tool tooth towel tower town toy track traffic
    train tree triangle truck tunnel umbrella vase vegetable vehicle wall water wave wheel window
    wing wire wolf woman wood wool yard zebra
    actin adipocyte algae alveolus amyloid antibody artery astrocyte bacillus bacteria bacterium
    biopsy blood brain capillary cancer cartilage cell centrosome chloroplast chromatin chromosome
    cilia coccus collagen colony cortex crypt cyst cytoplasm cytoskeleton debris dendrite dermis
    diatom duct embryo endosome endothelium eosinophil epidermis epithelial epithelium erythrocyte
    fat fiber fibroblast fibre fibril filament follicle fungus gland glomerulus goblet golgi
    granule gut hepatocyte hyphae islet keratin kidney larva lens lesion leukocyte lipid liver
    lumen lung lymph lymphocyte lysosome macrophage malignant mast membrane microglia microtubule
    mitochondria mitochondrion mitosis mitotic monocyte mucosa muscle myelin myofibril necrosis
    nematode nerve neuron neutrophil nuclear nuclei nucleoli nucleolus nucleus oocyte organ
    organelle organoid ovary parasite pathogen peroxisome plaque plasma plasmodium platelet pollen
    pore protein puncta receptor retina ribosome sarcomere secretory sperm spheroid spindle spine
    spore spot squamous stained stroma stromal synapse telomere tendon tissue trachea tubule
    tubulin tumor tumour vacuole vascular vein vesicle vessel villus virus worm yeast zebrafish
    """.split()  # noqa: SIM905 - a list of this length is read best as a text
)
"""Common words of everyday life and of biology. The tokenizer learns them too, so that words that
no training data named fall into few tokens."""


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
