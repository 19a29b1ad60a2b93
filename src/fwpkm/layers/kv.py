"""The keys and values that attention still sees, as a value that grows cheaply.

A state is a view of a `Room`, a buffer with free places behind the view. The first state to be
continued takes those places, as appending to a slice does in Go; a fork that comes later finds them
taken and moves to a room of its own. Nothing that any state shows is ever overwritten.
"""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fwpkm.layers.padding import Packing
from fwpkm.ops.compiling import uncompiled
from fwpkm.state import State

MIN_SPARE = 64
"""Free places that a new room has at least, in tokens."""


class Room:
    """A buffer of keys and values, filled from the front and never overwritten."""

    def __init__(
        self, keys: Float[Tensor, "B L G Dh"], v: Float[Tensor, "B L G Dh"], *, capacity: int
    ) -> None:
        B, used, G, Dh = keys.shape
        self.keys, self.v = keys.new_empty(B, capacity, G, Dh), v.new_empty(B, capacity, G, Dh)
        self.keys[:, :used], self.v[:, :used] = keys, v
        self.used = used

    def can_follow(self, keys: Float[Tensor, "B L G Dh"], new: Float[Tensor, "B T G Dh"]) -> bool:
        """Tell whether `keys` are the last ones in here and `new` ones fit behind them."""
        L, T = keys.shape[1], new.shape[1]
        return (
            L <= self.used <= self.keys.shape[1] - T
            and self.keys.device == keys.device
            and self.keys[:, self.used - L :].data_ptr() == keys.data_ptr()
            and self.keys.dtype == new.dtype
            # Torch forbids writing to what was made under inference_mode anywhere else.
            and (torch.is_inference_mode_enabled() or not self.keys.is_inference())
        )

    def write(
        self, visible: int, keys: Float[Tensor, "B T G Dh"], v: Float[Tensor, "B T G Dh"]
    ) -> tuple[Float[Tensor, "B S G Dh"], Float[Tensor, "B S G Dh"]]:
        """Take the next places; return views of the last `visible` tokens before them, and of them."""
        start, end = self.used - visible, self.used + keys.shape[1]
        self.keys[:, self.used : end], self.v[:, self.used : end] = keys, v
        self.used = end
        return self.keys[:, start:end], self.v[:, start:end]


@dataclass(frozen=True, kw_only=True, eq=False)
class KVState(State):
    """Keys and values of the last L tokens of B streams, each stream's newest token last."""

    keys: Float[Tensor, "B L G Dh"]
    """Zeros where a stream has fewer than L tokens; positions are already turned in."""
    v: Float[Tensor, "B L G Dh"]
    """Values of the same tokens."""
    tokens_seen: Int[Tensor, " B"]
    """Real tokens of each stream so far, also those that are no longer visible."""
    shortest: int
    """No stream has seen fewer tokens. Known here, so that decoding need not ask the device."""
    longest: int
    """No stream has seen more tokens."""
    room: Room | None = field(default=None, repr=False, metadata={"saved": False})
    """Where `keys` and `v` may continue; an optimisation that changes no result."""

    def select(self, streams: Int[Tensor, " b"]) -> "KVState":
        """Return the states of `streams`, repeated or reordered as asked; copies what is visible."""
        return replace(
            self,
            keys=self.keys[streams],
            v=self.v[streams],
            tokens_seen=self.tokens_seen[streams],
            room=None,
        )

    @property
    def missing(self) -> Int[Tensor, " B"] | None:
        """How many of the L places hold no token, per stream; None where every place holds one."""
        L = self.keys.shape[1]
        return None if self.shortest >= L else (L - self.tokens_seen).clamp_min(0)


def extend(
    state: KVState, keys: Float[Tensor, "B T G Dh"], v: Float[Tensor, "B T G Dh"], *, in_place: bool
) -> tuple[Float[Tensor, "B S G Dh"], Float[Tensor, "B S G Dh"], Room | None]:
    """Put new keys and values behind those of `state`; with `in_place`, into its room if it is free.

    Args:
        state: What was visible so far; shows the same afterwards.
        keys: Keys of T new tokens.
        v: Values of T new tokens.
        in_place: Whether a room may be used. Never where gradients flow: autograd keeps the views.

    Returns:
        Keys and values of all S = L + T tokens, and the room that they are in.
    """
    L = state.keys.shape[1]
    if L == 0:
        return keys, v, None
    if not in_place:
        return torch.cat((state.keys, keys), dim=1), torch.cat((state.v, v), dim=1), None
    return _extend_in_place(state, keys, v)


@uncompiled
def _extend_in_place(state: KVState, keys: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Room]:
    L, room = state.keys.shape[1], state.room
    if room is None or not room.can_follow(state.keys, keys):
        total = L + keys.shape[1]
        room = Room(state.keys.to(keys.dtype), state.v.to(v.dtype), capacity=total + max(total, MIN_SPARE))
    return *room.write(L, keys, v), room


def keep_last(
    state: KVState,
    keys: Float[Tensor, "B S G Dh"],
    v: Float[Tensor, "B S G Dh"],
    room: Room | None,
    limit: int | None,
) -> KVState:
    """Return the state after `extend` without padding; `limit` is how many tokens stay visible."""
    T, S = keys.shape[1] - state.keys.shape[1], keys.shape[1]
    kept = S if limit is None else min(S, limit)
    keys, v = keys[:, S - kept :], v[:, S - kept :]
    if room is None and 2 * kept < S:
        # A view would keep the whole call's keys alive for the sake of a window.
        keys, v = keys.clone(), v.clone()
    seen = state.tokens_seen + T
    return KVState(
        keys=keys,
        v=v,
        tokens_seen=seen,
        shortest=state.shortest + T,
        longest=state.longest + T,
        room=room,
    )


@uncompiled
def keep_last_real(
    state: KVState,
    keys: Float[Tensor, "B S G Dh"],
    v: Float[Tensor, "B S G Dh"],
    packing: Packing,
    limit: int | None,
) -> KVState:
    """Return the state after `extend` with padding behind each stream's new tokens; always copies."""
    L = state.keys.shape[1]
    seen = state.tokens_seen + packing.lengths
    shortest, longest = (int(n) for n in torch.aminmax(seen))
    kept = longest if limit is None else min(longest, limit)
    place = (L + packing.lengths)[:, None] + torch.arange(-kept, 0, device=keys.device)  # [B, kept]
    empty = place < (L - state.tokens_seen)[:, None]
    index = place.clamp_min(0)[..., None, None].expand(-1, -1, *keys.shape[2:])
    keys, v = (x.gather(1, index).masked_fill(empty[..., None, None], 0.0) for x in (keys, v))
    return KVState(keys=keys, v=v, tokens_seen=seen, shortest=shortest, longest=longest)
