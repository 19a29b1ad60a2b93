"""The recipe's [data]: from a corpus on disk, or the novel that ships with the package, to batches."""

from dataclasses import dataclass
from typing import Literal

from fwpkm.data.batches import BatchSource, CarriedBatches, SequenceBatches
from fwpkm.data.books import novel_documents
from fwpkm.data.documents import TokenDocuments
from fwpkm.data.haystack import Haystack, ProseHaystack, WordHaystack
from fwpkm.data.recall import RecallConfig, RecallSequences
from fwpkm.data.sequences import CroppedSequences, PackedSequences, SequenceSource
from fwpkm.data.shards.corpus import open_corpus
from fwpkm.data.tokenizer import Tokenizer, load_tokenizer
from fwpkm.layers.checks import below_one, refuse
from fwpkm.nested import unknown_name
from fwpkm.train.parallel import Group

Layout = Literal["packed", "cropped", "carried"]
_VALIDATION = 1_000_003
"""Added to the seed of validation batches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """What a run reads. The recipe's section [data]."""

    corpus: str = "novel"
    """A folder that `fwpkm data build` wrote, or "novel" for the one that ships with the package."""
    tokenizer: str | None = None
    """What `fwpkm.data.tokenizer.load_tokenizer` takes; None: the corpus's own, and bytes for the novel."""
    layout: Layout = "packed"
    """"packed" joins documents end to end and cuts, "cropped" cuts inside documents, "carried" reads each
    document from end to end, one piece a step (`train.carry`)."""
    seq_len: int = 512
    """Tokens of a sequence."""
    batch_size: int = 16
    """Sequences of a step, all processes together."""
    seed: int = 0
    """Decides order, cuts and tasks."""
    haystack: Literal["prose", "words"] = "prose"
    """What recall tasks hide their facts in: the corpus, or random words."""
    recall: RecallConfig | None = None
    """Recall tasks among the sequences; None is none."""

    def __post_init__(self) -> None:
        problems = below_one(self, "seq_len", "batch_size")
        for name, known in (("layout", ("packed", "cropped", "carried")), ("haystack", ("prose", "words"))):
            if (value := getattr(self, name)) not in known:
                problems.append(f"{name}: {unknown_name('value', value, known)}")
        if self.layout == "carried" and self.recall is not None:
            problems.append(
                "recall needs sequences of their own, got layout='carried'; use packed or cropped"
            )
        refuse("DataConfig", problems)


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingData:
    """Batches to train on, batches to validate on, and what made tokens of them."""

    train: BatchSource
    validation: BatchSource | None
    tokenizer: Tokenizer


def open_data(config: DataConfig, group: Group) -> TrainingData:
    """Open what a run reads.

    Raises:
        ValueError: If the corpus is damaged, too short, or made by another tokenizer.
    """
    train, held_out, tokenizer = _documents(config)
    return TrainingData(
        train=_batches(train, tokenizer, config, config.seed, group),
        validation=None
        if held_out is None
        else _batches(held_out, tokenizer, config, config.seed + _VALIDATION, group),
        tokenizer=tokenizer,
    )


def _documents(config: DataConfig) -> tuple[TokenDocuments, TokenDocuments | None, Tokenizer]:
    if config.corpus == "novel":
        tokenizer = load_tokenizer(config.tokenizer or "bytes")
        return *novel_documents(tokenizer), tokenizer
    corpus = open_corpus(config.corpus)
    tokenizer = corpus.tokenizer() if config.tokenizer is None else load_tokenizer(config.tokenizer)
    corpus.check_tokenizer(tokenizer)
    splits = {shard.split for shard in corpus.manifest.shards}
    held_out = corpus.documents("held_out") if "held_out" in splits else None
    return corpus.documents("train"), held_out, tokenizer


def _batches(
    documents: TokenDocuments, tokenizer: Tokenizer, config: DataConfig, seed: int, group: Group
) -> BatchSource:
    share = {"batch_size": config.batch_size, "rank": group.rank, "world_size": group.world}
    if config.layout == "carried":
        return CarriedBatches(documents, seq_len=config.seq_len, seed=seed, **share)
    cut = PackedSequences if config.layout == "packed" else CroppedSequences
    source: SequenceSource = cut(documents, seq_len=config.seq_len, seed=seed)
    if config.recall is not None:
        prose = config.haystack == "prose"
        haystack: Haystack = ProseHaystack(documents) if prose else WordHaystack(tokenizer)
        source = RecallSequences(source, haystack, tokenizer, config.recall, seed=seed)
    return SequenceBatches(source, **share)
