"""States made by hand, and states compared number by number."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from fwpkm.memory.state import FwPKMState
from fwpkm.ops.addressing import key_squares
from fwpkm.ops.core.options import CoreOptions
from fwpkm.testing.accuracy import worst_element


def make_state(
    keys: Tensor,
    values: Tensor | None,
    options: CoreOptions,
    *,
    num_streams: int,
    value_dim: int | None = None,
    temperature: Tensor | float = 1.0,
) -> FwPKMState:
    """Return a fresh memory: sub-keys [S, 2, H, n, Dk/2] over one base table [N, Dv] (None: zeros)."""
    width = values.shape[1] if values is not None else value_dim
    assert width is not None, "a table of zeros needs its width"
    state = FwPKMState.fresh(
        keys[0],
        values,
        options,
        num_streams=num_streams,
        value_dim=width,
        temperature=temperature if isinstance(temperature, Tensor) else keys.new_tensor(temperature),
        shared=len(keys) < num_streams,
    )
    return replace(state, keys=keys, key_squares=key_squares(keys.detach(), options.score))


def state_numbers(state: FwPKMState) -> dict[str, Tensor]:
    """Spell out all that a state knows: sub-keys, dense tables, and every stream's waiting tokens."""
    waiting = state.waiting
    streams = range(len(waiting.counts))
    rows = {f"waiting {b}": waiting.tokens([b], waiting.counts[b]).flatten(0, 1) for b in streams}
    if len(rows) == 1:
        rows = {"waiting 0": waiting.tokens([0], waiting.counts[0])[0]}
    named = {"keys": state.keys, "table": state.table.dense(), "temperature": state.temperature, **rows}
    return {name: x.detach().clone() for name, x in named.items()}


def assert_same_numbers(
    got: dict[str, Tensor], expected: dict[str, Tensor], *, rtol: float = 1e-7, atol: float = 1e-9
) -> None:
    """Compare what `state_numbers` (or any such naming) gave; 0 tolerances ask for the very same bits."""
    assert got.keys() == expected.keys(), f"{[*got]} against {[*expected]}"
    for name, value in got.items():
        other = expected[name]
        assert value.shape == other.shape, f"{name}: {tuple(value.shape)} against {tuple(other.shape)}"
        if not torch.allclose(value, other, rtol=rtol, atol=atol):
            raise AssertionError(f"{name} differs; {worst_element(value, other)}")


def assert_same_but_for_noise(
    got: dict[str, Tensor],
    expected: dict[str, Tensor],
    noise: Mapping[str, float],
    *,
    rtol: float,
    atol: float,
    factor: float = 16.0,
) -> None:
    """Let results differ by `factor` times their `rounding_noise`, and hold the others to the tolerance given."""
    assert got.keys() == expected.keys(), f"{[*got]} against {[*expected]}"
    for name, value in got.items():
        other, error = expected[name], (value - expected[name]).norm().item()
        if not error <= factor * noise[name]:
            assert_same_numbers({name: value}, {name: other}, rtol=rtol, atol=atol)


def assert_same_state(
    got: FwPKMState, expected: FwPKMState, *, rtol: float = 1e-7, atol: float = 1e-9
) -> None:
    """Compare two states, the count of tokens seen included."""
    assert got.tokens_seen == expected.tokens_seen, f"{got.tokens_seen} against {expected.tokens_seen}"
    assert got.options == expected.options, f"{got.options} against {expected.options}"
    assert_same_numbers(state_numbers(got), state_numbers(expected), rtol=rtol, atol=atol)


def cut(total: int, lengths: Sequence[int]) -> list[slice]:
    """Cut `total` tokens into pieces of the given lengths, used round and round; zeros are empty calls."""
    assert any(lengths), "some piece must hold a token"
    spans, at, i = [], 0, 0
    while at < total:
        step = min(lengths[i % len(lengths)], total - at)
        spans.append(slice(at, at + step))
        at, i = at + step, i + 1
    return spans


def in_pieces(
    call: Callable[..., tuple[Tensor, FwPKMState]],
    state: FwPKMState | None,
    tensors: Sequence[Tensor | None],
    spans: Sequence[slice],
) -> tuple[Tensor, FwPKMState]:
    """Run `call(state, *pieces)` over spans of the time dimension; join the outputs, return the last state."""
    out = []
    for span in spans:
        y, state = call(state, *(None if x is None else x[:, span] for x in tensors))
        out.append(y)
    assert state is not None, "there was no piece"
    return torch.cat(out, dim=1), state


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return all parameters and buffers of a module, those that no file holds too."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}
