"""What every result says about itself besides its numbers."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from fwpkm.eval.yarn import yarn_factor
from fwpkm.machine import describe_machine
from fwpkm.models.decoder import Decoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Which model was measured on which text, by what."""

    name: str
    """What tables and plots call the model."""
    checkpoint: str
    """Its folder, as it was given."""
    text: str
    """Where the text came from."""
    tokenizer: str
    """Which tokenizer, and its fingerprint."""
    num_parameters: int
    """Trained numbers of the model."""
    memory_layers: tuple[int, ...]
    """Layers with a memory."""
    command: str
    """The command line, without the folder of the program."""
    device: str
    threads: str
    torch: str
    backend: str
    python: str
    fwpkm: str
    commit: str
    date: str
    yarn_factor: float = 1.0
    """How many times longer than trained full attention's positions reach by YaRN."""
    seen_in_training: tuple[str, ...] = ()
    """Texts of this measurement that the model was trained on, as far as its folder says."""

    @classmethod
    def of(
        cls,
        model: Decoder,
        *,
        name: str,
        checkpoint: str,
        text: str,
        tokenizer: str,
        seen_in_training: tuple[str, ...] = (),
    ) -> "Origin":
        """Describe a measurement that is being made by this process."""
        return cls(
            name=name,
            checkpoint=checkpoint,
            text=text,
            tokenizer=tokenizer,
            num_parameters=sum(p.numel() for p in model.parameters()),
            memory_layers=tuple(i for i, block in enumerate(model.blocks) if block.memory is not None),
            command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            yarn_factor=yarn_factor(model),
            seen_in_training=seen_in_training,
            **describe_machine(model.embed.weight.device),
        )
