"""A tiny model that has read a short document with everything noted."""

import pytest
from inspect_helpers import TEXT, new_model

from fwpkm.data.tokenizer import ByteTokenizer
from fwpkm.inspect.inspection import Inspection
from fwpkm.models.decoder import Decoder


@pytest.fixture(scope="session")
def model() -> Decoder:
    return new_model()


@pytest.fixture(scope="session")
def inspection(model: Decoder) -> Inspection:
    return Inspection(model, ByteTokenizer(), TEXT, title="<b>book</b> & co", times=3, piece=17)
