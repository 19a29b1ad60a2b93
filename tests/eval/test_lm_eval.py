"""lm-evaluation-harness runs our checkpoints on RULER. On demand: see docs/evaluation.md."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from eval_readers import make_tiny

from fwpkm.data.tokenizer import ByteTokenizer
from fwpkm.models.decoder import Decoder
from fwpkm.models.files import save_model

WANTED = os.environ.get("FWPKM_LM_EVAL") == "1"
pytestmark = [
    pytest.mark.skipif(not WANTED, reason="takes minutes: set FWPKM_LM_EVAL=1 (docs/evaluation.md)"),
    pytest.mark.skipif(
        WANTED and importlib.util.find_spec("lm_eval") is None,
        reason="needs lm-evaluation-harness: pip install 'lm-eval[hf]' wonderwords nltk",
    ),
]
START = "import fwpkm.models.hf; from lm_eval.__main__ import cli_evaluate; cli_evaluate()"
TASKS = ("niah_single_1", "niah_multikey_2", "niah_multikey_3")
"""Those that fetch nothing and whose texts fit: ruler_vt never ends making one example of 500 bytes."""
LENGTH, LIMIT, MOST_TOKENS = 1024, 2, 128


def test_the_harness_gets_the_answers_that_greedy_decoding_gives(tmp_path: Path) -> None:
    folder, out = tmp_path / "model", tmp_path / "out"
    model = make_tiny()
    save_model(folder, model)
    ByteTokenizer().save_for_transformers(folder)
    metadata = json.dumps({"max_seq_lengths": [LENGTH], "pretrained": str(folder)})
    command = [
        *(sys.executable, "-c", START, "run", "--model", "hf", "--device", "cpu", "--batch_size", "1"),
        *("--model_args", f"pretrained={folder},dtype=float32", "--tasks", ",".join(TASKS)),
        *("--limit", str(LIMIT), "--metadata", metadata, "--output_path", str(out), "--log_samples"),
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    (written,) = out.rglob("results_*.json")
    results = json.loads(written.read_text())["results"]
    for task in TASKS:
        (file,) = out.rglob(f"samples_{task}_*.jsonl")
        samples = [json.loads(line) for line in file.read_text().splitlines()]
        check(model, samples, results[task][f"{LENGTH},none"])


def check(model: Decoder, samples: list[dict], score: float) -> None:
    assert len(samples) == LIMIT
    for sample in samples:
        prompt, answer = sample["arguments"]["gen_args_0"]["arg_0"], sample["resps"][0][0]
        assert LENGTH / 2 < len(prompt.encode()) <= LENGTH
        assert answer == greedy(model, prompt)
    right = [all(value in s["filtered_resps"][0] for value in s["doc"]["outputs"]) for s in samples]
    assert score == pytest.approx(sum(right) / LIMIT)


@torch.no_grad()
def greedy(model: Decoder, prompt: str) -> str:
    """Answer byte by byte, from our own decoder, until it ends the text or has said as much as RULER lets it."""
    tokenizer, tokens = ByteTokenizer(), list[int]()
    output = model(torch.from_numpy(tokenizer.encode(prompt))[None])
    while len(tokens) < MOST_TOKENS and tokenizer.eos_id not in tokens:
        tokens.append(int(output.logits[0, -1].argmax()))
        output = model(torch.tensor([tokens[-1:]]), output.cache)
    return tokenizer.decode(tokens)
