"""Equal parameters: a feed-forward width for every system."""

from collections.abc import Mapping
from typing import Any

from fwpkm.models.config import DecoderConfig
from fwpkm.models.count import Numbers, count_numbers
from fwpkm.models.parts import meta_decoder
from fwpkm.recipe import merge


def count_parameters(config: DecoderConfig) -> int:
    """Count the trained numbers of a decoder, without building one."""
    return sum(count_numbers(meta_decoder(config)).values(), Numbers()).trained


def width_for(model: Mapping[str, Any], target: int) -> int:
    """Return the model.swiglu.hidden_dim with which a decoder has nearest to `target` parameters.

    Args:
        model: A recipe's section [model].
        target: Trained numbers, all in all.

    Raises:
        ValueError: If no layer has such a feed-forward part, or all else is larger than `target` already.
    """
    if DecoderConfig.from_dict(model).swiglu is None:
        raise ValueError("equal_parameters: needs a layer with model.swiglu, whose width it can choose")
    at_one, at_two = (count_parameters(_with_width(model, width)) for width in (1, 2))
    width = 1 + round((target - at_one) / (at_two - at_one))
    if width < 1:
        raise ValueError(
            f"equal_parameters: {target:,} parameters cannot be met, all but the feed-forward parts are {at_one:,}; "
            "make the model narrower, or the first system larger"
        )
    return width


def _with_width(model: Mapping[str, Any], width: int) -> DecoderConfig:
    return DecoderConfig.from_dict(merge(model, {"swiglu": {"hidden_dim": width}}))
