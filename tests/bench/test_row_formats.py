"""What a trained model read is still found after saving in narrower rows; a format that loses it is noticed."""

from dataclasses import replace

import pytest
from bench_scripts import load_script

from fwpkm.cli.session_options import load_reader


@pytest.fixture(scope="module")
def script():
    return load_script("row_formats")


def test_every_format_keeps_the_facts_and_exact_rows_every_bit(script):
    model, tokenizer = load_reader("small", "cpu")
    maker = script.DocumentMaker("novel", tokenizer, needles=4, least=400, most=600)
    done = script.Comparison(model, tokenizer)
    assert list(done.run([maker.document(0, number) for number in range(2)])) == [1, 2]
    assert done.unsaved.questions == 8
    assert done.unsaved.right >= 6
    exact, full, half, byte = done.formats
    assert exact.recall == full.recall == done.unsaved
    assert exact.loss == full.loss == 0 < half.loss < byte.loss < 0.02
    assert exact.file_bytes > half.file_bytes > byte.file_bytes
    for narrow in (half, byte):
        assert narrow.recall.right >= exact.recall.right - 1
        assert narrow.recall.nats != exact.recall.nats
    lost = replace(exact.recall, right=0)
    byte.recall = lost
    assert done.problems == ["int8 finds 0.0%, exact rows " + f"{exact.recall.share:.1%}"]
    exact.recall = lost
    assert "otherwise than the session that was saved" in done.problems[0]
