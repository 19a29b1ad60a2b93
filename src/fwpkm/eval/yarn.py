"""Full attention beyond its trained length, without training: YaRN (arXiv:2309.00071)."""

from dataclasses import replace

from fwpkm.models.decoder import Decoder


def stretch(model: Decoder, *, trained: int, length: int) -> Decoder:
    """Return a decoder that shares the model's weights and whose rotary positions reach `length` tokens by YaRN.

    Args:
        model: A decoder with full attention, its positions as trained.
        trained: Tokens of a sequence in training.
        length: Tokens that are to be read; up to `trained` the model comes back as it is.

    Raises:
        ValueError: If no layer has full attention, positions are scaled already, or a length is below 1.
    """
    attention = model.config.attention
    if attention is None or "full_attention" not in model.config.mixers:
        raise ValueError(f"yarn: needs a layer of full attention, got mixers={list(model.config.mixers)}")
    if attention.rope.scaling != "none":
        raise ValueError(f"yarn: positions must be as trained, got scaling={attention.rope.scaling!r}")
    if trained < 1 or length < 1:
        raise ValueError(f"yarn: lengths must be at least 1, got trained={trained} and length={length}")
    if length <= trained:
        return model
    rope = replace(attention.rope, scaling="yarn", factor=length / trained, original_length=trained)
    config = replace(model.config, attention=replace(attention, rope=rope))
    stretched = Decoder(config).to(model.head_weight.device, model.head_weight.dtype)
    stretched.load_state_dict(model.state_dict(), assign=True)
    return stretched.eval()


def yarn_factor(model: Decoder) -> float:
    """Return how many times longer than trained positions reach by YaRN; 1 is as trained."""
    attention = model.config.attention
    return attention.rope.factor if attention is not None and attention.rope.scaling == "yarn" else 1.0
