"""What the measurements by context length come to: flatness, ratios of decoding, growth of the state, crossovers."""

from collections.abc import Iterator, Sequence

from fwpkm.bench.rows import Row

SHORT, LONG = 4096, 131072
"""Contexts that decoding is compared at; where they were not measured, the shortest and the longest that were."""
_RIVAL = "attention"


def summarise_system(rows: Sequence[Row]) -> Iterator[Row]:
    """Yield ratios of one system's rows, each with the lengths that it is of.

    prefill flatness: the dearest token over the cheapest, by length, from `SHORT` on. decode ratio (of the mean
    token, of reads, of writes): a long context's over a short one's. state ratio: the same of its bytes, with what it
    can grow to.
    """
    own = [row for row in rows if "median_s" in row]
    if not own:
        return
    common = _common(own[0])
    yield from _flatness(own, common)
    for what in dict.fromkeys(row["what"] for row in own if row["what"].startswith("decode")):
        yield from _long_over_short(own, what, "median_s", {"what": f"{what} ratio", **common})
    for row in _long_over_short(own, "prefill", "state_bytes", {"what": "state ratio", **common}):
        last = next(x for x in own if x["what"] == "prefill" and x["tokens"] == row["tokens"])
        yield {**row, **{name: last[name] for name in ("state_bytes", "bound_bytes") if name in last}}


def find_crossovers(rows: Sequence[Row]) -> Iterator[Row]:
    """Yield, for each system, the length from which on it is no slower than attention, in prefill and in decoding.

    At all lengths, that is, that both were measured at; empty where there is none.
    """
    timed = [row for row in rows if "median_s" in row]
    for system in dict.fromkeys(row["system"] for row in timed if row["system"] != _RIVAL):
        own = [row for row in timed if row["system"] == system]
        yield from _crossovers(own, timed, _common(own[0]))


def _common(row: Row) -> Row:
    return {name: row[name] for name in ("system", "shape", "streams", "dtype", "backend") if name in row}


def _by_length(rows: Sequence[Row], what: str, column: str) -> dict[int, int | float]:
    return {
        row["tokens"]: row[column]
        for row in sorted(rows, key=_tokens)
        if row["what"] == what and column in row
    }


def _tokens(row: Row) -> int:
    return int(row["tokens"])


def _flatness(own: Sequence[Row], common: Row) -> Iterator[Row]:
    times = _by_length(own, "prefill", "median_s")
    per_token = {length: s / length for length, s in times.items() if length >= SHORT}
    if len(per_token) > 1:
        ratio = max(per_token.values()) / min(per_token.values())
        ends = {"tokens": max(per_token), "from_tokens": min(per_token)}
        yield {"what": "prefill flatness", **common, **ends, "ratio": ratio}


def _long_over_short(own: Sequence[Row], what: str, column: str, common: Row) -> Iterator[Row]:
    values = _by_length(own, what, column)
    if len(values) > 1:
        short = SHORT if SHORT in values else min(values)
        long = LONG if LONG in values and what != "prefill" else max(values)
        if long > short:
            yield {**common, "tokens": long, "from_tokens": short, "ratio": values[long] / values[short]}


def _crossovers(own: Sequence[Row], rows: Sequence[Row], common: Row) -> Iterator[Row]:
    rival = [row for row in rows if row["system"] == _RIVAL]
    for what in ("prefill", "decode"):
        mine, theirs = (_by_length(part, what, "median_s") for part in (own, rival))
        both = sorted(set(mine) & set(theirs), reverse=True)
        if not both:
            continue
        ahead = None
        for length in both:
            if mine[length] > theirs[length]:
                break
            ahead = length
        yield {
            "what": f"{what} crossover",
            **common,
            "tokens": ahead,
            "from_tokens": min(both),
            "against": _RIVAL,
        }
