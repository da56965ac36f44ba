"""The pocket backbone's two tokenizers, of AudioLDM2's classes, with vocabularies that fit prompts about music."""

import json
import math
from collections import Counter
from string import ascii_letters, digits, punctuation
from typing import Any, cast

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import RobertaTokenizer, T5Tokenizer

from apa_lightning.pocket.text.prompts import (
    DESCRIPTIONS,
    GENRES,
    INSTRUMENTS,
    MEANINGS,
    NEGATIVE_PROMPT,
    OTHER_WORDS,
    label_text,
)

MAX_TOKENS = 128
SENTINELS = 16


def corpus() -> list[str]:
    """Every caption and word of :mod:`prompts`, and every label."""
    return [
        *(caption for meaning in MEANINGS for caption in meaning.captions()),
        *(label_text([label]) for label in [*INSTRUMENTS.values(), *GENRES.values()]),
        NEGATIVE_PROMPT,
        *DESCRIPTIONS,
        *OTHER_WORDS,
    ]


def clap_tokenizer(vocabulary_size: int = 1000) -> RobertaTokenizer:
    """CLAP's tokenizer class: byte-level BPE, which reads any text; a word has the same pieces everywhere in a text."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    learned = _learn(learner, vocabulary_size, sorted(pre_tokenizers.ByteLevel.alphabet()), special)
    merges = [tuple(pair) for pair in learned["merges"]]
    return RobertaTokenizer(
        vocab=learned["vocab"], merges=cast(Any, merges), add_prefix_space=True, model_max_length=MAX_TOKENS
    )  # fmt: skip


def t5_tokenizer(vocabulary_size: int = 900) -> T5Tokenizer:
    """T5's tokenizer class: Unigram over all printable ASCII, and the sentinels of span corruption at the end.

    The pieces come from byte-pair merges and their scores from counts: the Unigram trainer of ``tokenizers`` sums in
    another order every time, and a vocabulary must be the same on every machine that resumes a training.
    """
    learner = Tokenizer(models.BPE())
    words = [
        pre_tokenizers.WhitespaceSplit(),
        pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True),
        pre_tokenizers.Punctuation(),
    ]
    learner.pre_tokenizer = pre_tokenizers.Sequence(words)
    special = ["<pad>", "</s>", "<unk>"]
    sentinels = [f"<extra_id_{i}>" for i in reversed(range(SENTINELS))]
    characters = ["▁", *ascii_letters, *digits, *punctuation]
    learned = _learn(learner, vocabulary_size - SENTINELS, characters, special)
    pieces = sorted(learned["vocab"], key=learned["vocab"].__getitem__)[len(special) :]
    counts = Counter(token for text in corpus() for token in learner.encode(text).tokens)
    total = sum(counts.values()) + len(pieces)
    scores = [(piece, math.log((counts[piece] + 1) / total)) for piece in pieces]
    vocabulary = [*((token, 0.0) for token in special), *scores, *((token, 0.0) for token in sentinels)]
    return T5Tokenizer(vocab=vocabulary, extra_ids=SENTINELS, model_max_length=MAX_TOKENS)


def _learn(learner: Tokenizer, size: int, alphabet: list[str], special: list[str]) -> dict:
    """Byte-pair merges on the corpus; the model's part of the tokenizer's JSON."""
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )  # fmt: skip
    learner.train_from_iterator(corpus(), trainer)
    return json.loads(learner.to_str())["model"]
