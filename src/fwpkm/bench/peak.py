"""Peak memory of one training step, in a process of its own:  python -m fwpkm.bench.peak FORM TOKENS

Within one process the first measurement's freed memory would hide what the second needs.
"""

import subprocess
import sys

from fwpkm.bench.core_step import PAPER, core_inputs, train_step
from fwpkm.bench.measure import peak_extra_bytes
from fwpkm.layers.fwpkm import FwPKM

FORMS = ("fast", "dense")


def peak_in_new_process(form: str, tokens: int) -> int | None:
    """Return how many bytes a step of `form` needs above the layer and its inputs; None if that is not known here."""
    command = [sys.executable, "-m", "fwpkm.bench.peak", form, str(tokens)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return int(printed) if printed != "None" else None


def main(form: str, tokens: int) -> None:
    """Print the peak of one step."""
    if form not in FORMS:
        raise ValueError(f"bench.peak: form must be one of {', '.join(FORMS)}, got form={form!r}")
    layer = FwPKM(PAPER)
    inputs = core_inputs(PAPER, 1, tokens)
    train_step(
        layer, tuple(x[:, :2].detach().requires_grad_() for x in inputs), by_definition=False
    )  # loads code
    print(peak_extra_bytes(lambda: train_step(layer, inputs, by_definition=form == "dense")))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
