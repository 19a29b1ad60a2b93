"""A byte-level byte-pair encoding trained on one's own text."""

from collections.abc import Iterable

from fwpkm.data.extra import need
from fwpkm.data.tokenizer.hugging_face import HuggingFaceTokenizer

SPECIAL = ("<pad>", "<s>", "</s>")


def train_bpe(texts: Iterable[str], *, vocab_size: int, name: str = "bpe") -> HuggingFaceTokenizer:
    """Learn merges from texts; digits stay single, so that a number is spelt alike wherever it stands.

    Args:
        texts: What to learn from.
        vocab_size: Number of ids, at least 259: the bytes and three special ones.
        name: What to call the tokenizer.

    Raises:
        ValueError: If the vocabulary is too small for the bytes.
    """
    if vocab_size < 256 + len(SPECIAL):
        raise ValueError(f"train_bpe: vocab_size must be at least {256 + len(SPECIAL)}, got {vocab_size}")
    tokenizers = need("tokenizers", "data")
    pre, models = tokenizers.pre_tokenizers, tokenizers.models
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre.Sequence(
        [pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer=trainer)
    special = {"pad": 0, "bos": 1, "eos": 2}
    return HuggingFaceTokenizer(backend, name=name, special=special)
