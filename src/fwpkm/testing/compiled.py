"""What `torch.compile` makes of a tiny decoder, in a process without the type checks of test runs: it cannot read them.

python -m fwpkm.testing.compiled SYSTEM prints one line of JSON.
"""

import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.utils import counters

from fwpkm.models.decoder import Decoder
from fwpkm.testing.systems import make_system

_SHAPES = ((2, 23), (3, 31), (3, 17), (4, 12))
"""Streams and tokens of the steps; the second one's graphs are for any length, and of PyTorch 2.13 on for any size."""
_PIECES = (9, 7, 4, *[1] * 14)
"""Tokens of the calls that read a stream; behind half of them every graph is there."""


class Compiled:
    """A decoder whose blocks are compiled, and the same one as it stands."""

    def __init__(self, system: str) -> None:
        torch.manual_seed(0)
        config = make_system(system)
        self.model, self.plain = (Decoder(config).double() for _ in range(2))
        self.plain.load_state_dict(self.model.state_dict())
        self.graphs = 0

        def count(graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
            self.graphs += 1
            return graph.forward  # runs what the compiler has read, operation by operation

        self.model.compile_blocks(backend=count)

    def train(self) -> dict[str, Any]:
        """Take steps of several shapes, then one with padding; return errors, and how many graphs there are."""
        errors, graphs = [], []
        for streams, length in _SHAPES:
            ids = torch.randint(40, (streams, length))
            errors.append(self._step_error(ids))
            graphs.append(self.graphs)
        mask = torch.arange(length) >= torch.arange(streams)[:, None]  # padding in front of some
        errors.append(self._step_error(ids, mask))
        return {"step_errors": errors, "step_graphs": graphs}

    def _step_error(self, ids: Tensor, mask: Tensor | None = None) -> float:
        results = [_step(model, ids, mask) for model in (self.model, self.plain)]
        return max(_distance(a, b) for a, b in zip(*results, strict=True))

    @torch.no_grad()
    def stream(self) -> dict[str, Any]:
        """Read a stream in pieces; return how far that is off, and after how many graphs."""
        ids = torch.randint(40, (2, sum(_PIECES)))
        cache, logits, graphs = None, [], []
        for piece in ids.split(_PIECES, dim=1):
            output = self.model.eval()(piece, cache)
            cache = output.cache
            logits.append(output.logits)
            graphs.append(self.graphs)
        whole = self.plain.eval()(ids).logits
        return {"stream_error": _distance(torch.cat(logits, dim=1), whole), "stream_graphs": graphs}


def _step(model: Decoder, ids: Tensor, mask: Tensor | None = None) -> list[Tensor]:
    model.zero_grad()
    loss, _ = model.train().loss(ids, mask=mask)
    loss.backward()
    return [loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max().clamp_min(1e-6))


@contextmanager
def complaints_heard() -> Iterator[list[str]]:
    """Collect what PyTorch warns of, in either way."""
    found: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    # which do not hand on to each other
    loggers = [logging.getLogger(name) for name in ("torch", "torch._dynamo", "torch._inductor")]
    for logger in loggers:
        logger.addHandler(handler)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield found
    for logger in loggers:
        logger.removeHandler(handler)
    found += [str(w.message) for w in caught if not issubclass(w.category, DeprecationWarning)]


def main(system: str) -> None:
    """Print what compiling did: errors, graphs so far, why graphs ended, complaints."""
    with complaints_heard() as complaints:
        compiled = Compiled(system)
        result = {**compiled.train(), **compiled.stream()}
    print(json.dumps({**result, "breaks": list(counters["graph_break"]), "complaints": complaints}))


if __name__ == "__main__":
    main(sys.argv[1])
