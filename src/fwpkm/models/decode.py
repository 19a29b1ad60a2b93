"""Decoding a token at a time with as few launches as there can be."""

from jaxtyping import Float, Int
from torch import Tensor

from fwpkm.layers.step_graph import StepGraph
from fwpkm.models.cache import DecoderCache
from fwpkm.models.decoder import Decoder


class DecodeGraph:
    """Decode with a `Decoder`, one token of each stream a call, under CUDA graphs: see `StepGraph`.

    >>> prompt = model(input_ids, logits_to_keep=1)
    >>> graph = DecodeGraph(model, prompt.cache)
    >>> token = prompt.logits.argmax(-1)  # [B, 1]
    >>> for _ in range(100):
    ...     token = graph(token).argmax(-1)
    >>> later = graph.cache

    Args:
        model: In evaluation mode; its weights may be edited in place, but not replaced, while the graph is used.
        cache: What the streams have seen so far; never edited.
    """

    def __init__(self, model: Decoder, cache: DecoderCache) -> None:
        def step(ids: Tensor, cache: DecoderCache) -> tuple[Tensor, DecoderCache]:
            output = model(ids, cache)
            return output.logits, output.cache

        self._graph = StepGraph(step, cache)

    def __call__(self, input_ids: Int[Tensor, "B 1"]) -> Float[Tensor, "B 1 V"]:
        """Return the scores of what follows each stream's next token; the next call may overwrite them."""
        return self._graph(input_ids)

    @property
    def cache(self) -> DecoderCache:
        """What the streams have seen after all tokens so far; a value, which no later step edits."""
        return self._graph.state
