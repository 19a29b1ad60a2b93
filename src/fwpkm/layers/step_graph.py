"""One token's step as a CUDA graph: a single launch for all of it, as long as no memory writes."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from fwpkm.layers.fixed import fixed, have_same_shapes, plain, put_back, tokens_before_write
from fwpkm.ops.kept import keeping_lists

S = TypeVar("S")
Step = Callable[[Tensor, S], tuple[Tensor, S]]
_MOST_STEPS = 1 << 12
"""Steps of one graph where no write ends it sooner."""


class StepGraph(Generic[S]):
    """Go on from a state token by token, replaying what a step does instead of launching it piece by piece.

    A step that completes a chunk of some memory is carried out as ever, and what follows is captured anew; so is
    every step that changes the size of the state: while a window fills, and under full attention always. Numbers
    are those of the step itself. Without CUDA nothing is captured, and the same operations run one by one.

    >>> graph = StepGraph(layer, state)
    >>> answers = [graph(x).clone() for x in tokens]  # each [B, 1, D]
    >>> y, state = layer(document, graph.state)

    Args:
        step: Takes one token of each of B streams and the state before it; returns what it answers and the state
            after it. It must not wait for the device, as `check_inputs` does. No gradient flows.
        state: Where to begin; never edited.
    """

    def __init__(self, step: Step[S], state: S) -> None:
        self._step, self._state = step, state
        self._replay: _Replay[S] | None = None
        self._recorder: _Recorder | None = None

    @property
    def state(self) -> S:
        """The state after all tokens so far; a value, which no later step edits."""
        return self._state if self._replay is None else self._replay.state

    @property
    def steps_left(self) -> int:
        """Tokens that are replayed before one is carried out as ever; 0 if the next one is."""
        return 0 if self._replay is None else self._replay.steps_left

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Return what the next token of each stream is answered; the next call may overwrite it.

        Args:
            x: [B, 1, ...], of the same shape, dtype and device in every call.
        """
        if self._replay is None or not self._replay.steps_left:
            return self._carry_out(x)
        return self._replay(x)

    def _carry_out(self, x: Tensor) -> Tensor:
        before = self.state
        self._replay = None  # before the tables are edited that its graph reads
        y, self._state = self._step(x, before)
        room = tokens_before_write(self._state, _MOST_STEPS)
        if room and have_same_shapes(before, self._state):
            self._replay = _Replay(self._step, self._state, room, x)
            if x.is_cuda:
                self._recorder = self._recorder or _Recorder(x.device)
                self._replay.capture(self._recorder)
        return y


class _Replay(Generic[S]):
    """At most `room` steps from a state on, which is copied into tensors that stay where they are."""

    def __init__(self, step: Step[S], state: S, room: int, like: Tensor) -> None:
        self._step, self._before, self._room = step, state, room
        self._now, self._x = fixed(state, room), like.clone()
        self._graph: torch.cuda.CUDAGraph | None = None
        self._lists: list[Tensor] = []
        """What the graph reads and nobody else need keep."""
        self._y: Tensor | None = None
        self.steps_left = room

    @property
    def state(self) -> S:
        return plain(self._now, self._before, self._room - self.steps_left)

    def __call__(self, x: Tensor) -> Tensor:
        if x.shape != self._x.shape or x.dtype != self._x.dtype or x.device != self._x.device:
            raise ValueError(
                f"StepGraph: every x must be like the first one, {tuple(self._x.shape)} of {self._x.dtype} on "
                f"{self._x.device}, got {tuple(x.shape)} of {x.dtype} on {x.device}"
            )
        self._x.copy_(x)
        if self._graph is None:
            self._y = self._run()
        else:
            self._graph.replay()
        self.steps_left -= 1
        assert self._y is not None, "capturing made it"
        return self._y

    def _run(self) -> Tensor:
        y, after = self._step(self._x, self._now)
        put_back(self._now, after)
        return y

    def capture(self, recorder: "_Recorder") -> None:
        """Record the step's launches, to be replayed from now on."""

        def record() -> None:
            with keeping_lists() as self._lists:
                self._y = self._run()

        copy = fixed(self._before, self._room)
        self._graph = recorder.record(record, lambda: self._step(self._x, copy))


class _Recorder:
    """What the CUDA graphs of one `StepGraph` have in common: a stream, and memory that they use in turns."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        """One for all: blocks of memory are used again on the stream that they were taken on."""
        self._pool: Any = None
        self._last: torch.cuda.CUDAGraph | None = None
        """Never replayed again once there is a newer one, and kept until then: a pool ends with its last graph."""

    def record(self, step: Callable[[], None], first: Callable[[], object]) -> torch.cuda.CUDAGraph:
        """Record what `step` launches. Before, `first` is run: kernels are compiled then, and lists made.

        Every time, since a line that has become longer may want kernels compiled anew.
        """
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            first()
            # Without the collection and the emptied cache that `torch.cuda.graph` begins with, chunk after chunk.
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                step()
            finally:
                graph.capture_end()
        current.wait_stream(self._stream)
        self._last = graph
        return graph
