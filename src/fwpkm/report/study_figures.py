"""A study's figures: curves with bands over seeds, and heat maps of needles."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fwpkm.report.figures import Figure
from fwpkm.report.needles import condition
from fwpkm.report.numbers import percent
from fwpkm.report.study_tables import conditions_of, in_bits, lengths_of, modes_of, places_of
from fwpkm.report.svg import Curve, heat_map, line_chart
from fwpkm.study.plan import slug_of
from fwpkm.study.results import Condition, Reading, StudyResults, SystemResults
from fwpkm.study.spread import Spread

_SETTLED = 64
"""Position from which costs by position are drawn: next to what a text's first tokens cost, systems look alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyFigures:
    """All that there is to draw of a study."""

    training: tuple[Figure, ...]
    needles: tuple[Figure, ...]
    depths: tuple[Figure, ...]
    perplexity: tuple[Figure, ...]


def draw_study(results: StudyResults) -> StudyFigures:
    """Draw it."""
    return StudyFigures(
        training=tuple(_losses(results)),
        needles=tuple(_needles(results)),
        depths=tuple(_depths(results)),
        perplexity=tuple(_perplexity(results)),
    )


def _losses(results: StudyResults) -> Iterator[Figure]:
    """Draw the training losses of all systems."""
    if curves := [curve for own in results.systems if (curve := _loss_curve(own))]:
        yield Figure(
            name="training",
            title="Training loss by tokens seen, recall tasks included",
            svg=line_chart(curves, x_title="tokens", y_title="nats per token"),
        )


def _needles(results: StudyResults) -> Iterator[Figure]:
    """Draw the shares of needle samples right by length, a figure for each way of asking."""
    for asked in conditions_of(results):
        yield Figure(
            name=slug_of(f"needles {condition(*asked)}"),
            title=f"Samples with all answers right: {condition(*asked)}",
            svg=_needle_chart(results, asked),
        )


def _depths(results: StudyResults) -> Iterator[Figure]:
    """Draw the same by length and depth, a heat map for each system and way of asking."""
    for reading in results.readings:
        for asked in reading.conditions():
            seeds = f"mean of {len(reading.needles)} seeds" if len(reading.needles) > 1 else "1 seed"
            yield Figure(
                name=slug_of(f"depths {reading.name} {condition(*asked)}"),
                title=f"{reading.name}: {condition(*asked)}, {seeds}",
                svg=_needle_map(reading, asked, lengths_of(results)),
            )


def _perplexity(results: StudyResults) -> Iterator[Figure]:
    """Draw costs of tokens by position, a figure for each mode of the memory."""
    for mode in modes_of(results):
        readings = [reading for reading in results.readings if mode in reading.perplexity]
        places = places_of(readings, mode)
        late = [place for place in places if place[0] >= _SETTLED]
        curves = []
        for reading in readings:
            bits = {
                place[0]: b
                for place in late or places
                if (b := in_bits(reading.nats(mode, place))) is not None
            }
            curves.append(_curve(reading.name, bits))
        memory = mode.removeprefix("memory_").replace("_", " ")
        yield Figure(
            name=slug_of(f"perplexity {memory}"),
            title=f"Mean cost of a token{f' from position {late[0][0]} on' if late else ''}: memory {memory}",
            svg=line_chart(curves, x_title="position in the run", y_title="bits per token"),
        )


def _loss_curve(own: SystemResults) -> Curve | None:
    places = sorted({tokens for training in own.trainings for tokens in training.losses})
    found = {
        tokens: Spread.of(t.losses[tokens] for t in own.trainings if tokens in t.losses) for tokens in places
    }
    return _curve(own.system.label, found) if found else None


def _curve(name: str, points: Mapping[int, Spread]) -> Curve:
    """Draw means, with a band from the lowest to the highest where there are several seeds."""
    spreads = points.values()
    several = any(len(spread.values) > 1 for spread in spreads)
    return Curve(
        name=name,
        x=tuple(float(place) for place in points),
        y=tuple(spread.mean for spread in spreads),
        low=tuple(spread.low for spread in spreads) if several else None,
        high=tuple(spread.high for spread in spreads) if several else None,
    )


def _needle_chart(results: StudyResults, asked: Condition) -> str:
    curves = []
    for reading in results.readings:
        shares = {n: s for n in lengths_of(results) if (s := reading.needle_share(asked, n)) is not None}
        if shares:
            curves.append(_curve(reading.name, shares))
    return line_chart(curves, x_title="tokens", y_title="share of samples right", low=0.0, high=1.0)


def _needle_map(reading: Reading, asked: Condition, lengths: Sequence[int]) -> str:
    depths = sorted({cell.depth for own in reading.needles for cell in own})
    shares = [[reading.needle_share(asked, length, depth) for length in lengths] for depth in depths]
    return heat_map(
        [[None if share is None else share.mean for share in row] for row in shares],
        rows=[percent(depth) for depth in depths],
        columns=[f"{length:,}" for length in lengths],
        row_title="depth",
        column_title="tokens",
    )
