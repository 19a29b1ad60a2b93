"""What tests of the inspector share."""

import torch

from fwpkm.models.decoder import Decoder
from fwpkm.testing.systems import make_system

TEXT = "The secret of ID-7f is 4028. <script>alert('1')</script>\nIt rained in Čáslav & Zürich."


def new_model(name: str = "sliding_fwpkm", **changes: object) -> Decoder:
    torch.manual_seed(0)
    return Decoder(make_system(name, vocab_size=259, **changes)).eval()
