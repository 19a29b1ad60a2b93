"""An inspection as plain JSON: what the page shows, and what its server answers."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from fwpkm.inspect.census import Census, take_census
from fwpkm.inspect.inspection import Answer, Inspection
from fwpkm.inspect.pieces import clean, word_text
from fwpkm.inspect.recording import slot_memories
from fwpkm.inspect.says import nearest_words
from fwpkm.inspect.writers import find_writers
from fwpkm.layers.fwpkm_config import FwPKMConfig
from fwpkm.memory.state import FwPKMState
from fwpkm.models.trace import MemoryTrace

_DIGITS = 3
_WORDS = 5


def page_data(
    inspection: Inspection, answers: Sequence[Answer] = (), *, live: bool = False
) -> dict[str, Any]:
    """Return all that the page shows.

    `readings` holds what each token did in each reading, memory by memory, and `tables` what the memories held
    after it. Numbers have three digits; tokens of a later reading count on: token t of reading r is (r-1) T + t.

    Args:
        inspection: A document in memory.
        answers: Answers to show.
        live: Whether a server stands behind the page, whom one may ask more.
    """
    recording = inspection.recording
    layers = [layer for layer, trace in enumerate(recording.traces[0]) if trace is not None]
    tables = [
        [_table(inspection, reading, layer) for layer in layers] for reading in range(1, recording.times + 1)
    ]
    spoken = {token for own in tables for table in own if table is not None for token in table["says"]}
    return {
        "title": clean(inspection.title),
        "tokens": recording.num_tokens,
        "times": recording.times,
        "live": live,
        "memories": [_memory(inspection, layer) for layer in layers],
        "readings": [[_trace(traces[layer]) for layer in layers] for traces in recording.traces],
        "tables": tables,
        "words": {token: _word(inspection, token) for token in sorted(spoken)},
        "answers": [answer_data(inspection, answer) for answer in answers],
    }


def answer_data(inspection: Inspection, answer: Answer) -> dict[str, Any]:
    """Return one answer with the places in the document that it came from."""
    length = inspection.recording.num_tokens
    sources = [
        {
            "layer": source.layer,
            "token": source.written % length,
            "reading": source.written // length + 1,
            "address": source.token % length,
            "weight": _number(source.weight),
        }
        for source in answer.sources
    ]
    return {
        "question": clean(answer.question),
        "reading": answer.reading,
        "text": clean(answer.text),
        "sources": sources,
    }


def to_json(value: Any) -> str:
    """Write JSON in ASCII that no HTML parser can take for anything but text."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _word(inspection: Inspection, token: int) -> str:
    """Name a token by its text, or by its number where it has none of its own."""
    text = word_text(inspection.tokenizer, token)
    return text if text and "\N{REPLACEMENT CHARACTER}" not in text else f"token {token}"


def _memory(inspection: Inspection, layer: int) -> dict[str, Any]:
    config = inspection.model.config.memory(layer)
    trace = inspection.recording.traces[0][layer]
    facts: dict[str, Any] = {"layer": layer, "gated": trace is not None and trace.gate is not None}
    if isinstance(config, FwPKMConfig):
        facts |= {
            "slots": config.num_slots,
            "subkeys": config.num_subkeys,
            "reads": config.num_heads * config.topk,
            "lookahead": config.lookahead,
            "chunk": config.chunk_size,
        }
    return facts


def _trace(trace: MemoryTrace | None) -> dict[str, Any]:
    assert trace is not None, "a memory leaves a trace in every reading"
    return {
        "gate": None if trace.gate is None else _numbers(trace.gate),
        "slots": None if trace.slots is None else trace.slots.flatten().tolist(),
        "weights": None if trace.weights is None else _numbers(trace.weights),
    }


def _table(inspection: Inspection, reading: int, layer: int) -> dict[str, Any] | None:
    state = slot_memories(inspection.recording.caches[reading - 1]).get(layer)
    if state is None:
        return None
    assert state.table.journal is not None, "a recording keeps one"
    num_slots, length = state.table.store.num_slots, inspection.recording.num_tokens
    writers = find_writers(state.table.journal, num_slots)
    slots, counts = writers.slot.unique_consecutive(return_counts=True)
    census = take_census(
        writers, num_slots=num_slots, document_tokens=length, tokens_seen=state.tokens_seen[0]
    )
    return {
        "slot": slots.tolist(),
        "writes": counts.tolist(),
        "token": writers.token.tolist(),
        "step": _numbers(writers.step),
        "share": _numbers(writers.share),
        **_says(inspection, layer, state, slots),
        "census": _census(census),
    }


def _says(inspection: Inspection, layer: int, state: FwPKMState, slots: Tensor) -> dict[str, Any]:
    found = nearest_words(
        inspection.model,
        layer,
        state.table.gather(slots.to(state.keys.device)),
        words=_WORDS,
        vocab_size=inspection.tokenizer.vocab_size,
    )
    return {
        "words": found.token.shape[1],
        "says": found.token.flatten().tolist(),
        "chance": _numbers(found.chance),
    }


def _census(census: Census) -> dict[str, Any]:
    return {**asdict(census), "occupancy": census.occupancy}


def _numbers(x: Tensor) -> list[float | None]:
    return [_number(value) for value in x.flatten().tolist()]


def _number(value: float) -> float | None:
    """Round to a few digits; None stands for what is no number."""
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
