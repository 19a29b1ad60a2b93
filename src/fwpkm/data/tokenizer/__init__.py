"""Text to tokens and back."""

from fwpkm.data.tokenizer.bpe import train_bpe
from fwpkm.data.tokenizer.byte import ByteTokenizer
from fwpkm.data.tokenizer.hugging_face import HuggingFaceTokenizer
from fwpkm.data.tokenizer.load import load_tokenizer
from fwpkm.data.tokenizer.mistral import SentencePieceTokenizer
from fwpkm.data.tokenizer.protocol import Tokenizer

__all__ = [
    "ByteTokenizer", "HuggingFaceTokenizer", "SentencePieceTokenizer", "Tokenizer", "load_tokenizer", "train_bpe",
]  # fmt: skip
