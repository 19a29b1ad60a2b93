"""Token shards on disk: build them, open them, verify them."""

from fwpkm.data.shards.build import Progress, build_corpus
from fwpkm.data.shards.corpus import TokenCorpus, open_corpus, verify_corpus
from fwpkm.data.shards.manifest import Manifest, SourceEntry
from fwpkm.data.shards.unit import BuildOptions

__all__ = [
    "BuildOptions", "Manifest", "Progress", "SourceEntry", "TokenCorpus", "build_corpus", "open_corpus",
    "verify_corpus",
]  # fmt: skip
