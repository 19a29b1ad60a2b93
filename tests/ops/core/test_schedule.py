"""The plan of windows: every token is answered once, and every chunk written once, at its time."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fwpkm.ops.core.options import CoreOptions
from fwpkm.ops.core.schedule import count_written, plan_windows
from fwpkm.testing.unchecked import build_unchecked

options_of = st.builds(
    CoreOptions,
    chunk_size=st.integers(1, 7),
    lookahead=st.integers(0, 9),
    border=st.sampled_from(["moved", "dropped"]),
    key_loss=st.sampled_from(["entropy", "none"]),
)


@given(T=st.integers(0, 40), options=options_of, flush=st.booleans(), data=st.data())
def test_windows_answer_every_token_once_and_in_order(T, options, flush, data):
    most = min(options.lookahead, T) if options.border == "moved" else 0
    answered = data.draw(st.integers(0, most)) if options.lookahead < T else 0
    windows = plan_windows(T, options, answered=answered, flush=flush)
    told = [t for win in windows for t in range(win.start + win.num_repeated, win.stop)]
    assert told == list(range(answered, T))
    assert all(0 <= win.num_repeated <= win.num_tokens for win in windows)
    assert all(win.num_recent == win.num_tokens - win.num_repeated for win in windows)


@given(T=st.integers(0, 40), options=options_of, flush=st.booleans())
def test_every_pair_is_written_once_and_only_when_its_target_was_read(T, options, flush):
    windows, C, ahead = plan_windows(T, options, flush=flush), options.chunk_size, options.lookahead
    written = [t for win in windows for t in range(win.start, win.start + win.num_written)]
    assert all(win.start + win.num_written + ahead <= win.stop for win in windows if win.num_written)
    if options.border == "dropped":
        expected = [t for t in range(T - ahead) if t % C < C - ahead]
    else:
        expected = list(range(max(T - ahead, 0) if flush else max(T - ahead, 0) // C * C))
    assert written == expected


@given(T=st.integers(0, 40), options=options_of)
def test_moved_borders_lie_where_the_chunks_last_target_is_read(T, options):
    if options.border == "moved":
        C, ahead = options.chunk_size, options.lookahead
        borders = [win.stop for win in plan_windows(T, options) if win.num_written]
        assert borders == list(range(C + ahead, T + 1, C))
        assert count_written(T, options) == len(borders) * C
    else:
        assert count_written(T, options) == T


@given(T=st.integers(0, 40), options=options_of, flush=st.booleans())
def test_keys_step_exactly_where_there_is_a_write_and_a_key_loss(T, options, flush):
    for win in plan_windows(T, options, flush=flush):
        steps = win.num_written > 0 and options.key_loss != "none"
        counted = win.num_tokens if options.border == "dropped" else win.num_written
        assert win.num_key_tokens == (counted if steps else 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"topk": 0}, "topk must be at least 1, got topk=0"),
        ({"chunk_size": 0}, "chunk_size must be at least 1, got chunk_size=0"),
        ({"lookahead": -1}, "lookahead must be at least 0, got lookahead=-1"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0, got weight_decay=-0.1"),
        ({"score": "cosine"}, "score must be one of idw, dot, got score='cosine'"),
        ({"weights": "tanh"}, "weights must be one of softmax, silu, relu, got weights='tanh'"),
        ({"write_rule": "none"}, "write_rule must be one of paper, release, exact, got write_rule='none'"),
        ({"key_loss": "all"}, "key_loss must be one of entropy, memory, both, none, got key_loss='all'"),
        ({"border": "open"}, "border must be one of moved, dropped, got border='open'"),
    ],
)
def test_options_that_mean_nothing_are_refused(change, message):
    with pytest.raises(ValueError, match="^CoreOptions: " + re.escape(message) + "$"):
        build_unchecked(CoreOptions, **change)
