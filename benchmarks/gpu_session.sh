#!/usr/bin/env bash
# What a machine with a CUDA GPU is to say about the Triton kernels, in steps of less than ten minutes each:
#
#   benchmarks/gpu_session.sh STEP OUT      STEP: tests | kernels | suite | paper | one | lengths | model | compiled;   OUT: a folder for what it finds
#
# tests    parity, gradients, poison, races; kernels: what the compiler says of registers and spills (needs no GPU)
# paper    eight streams of 4,096: the layer, its core and its scan, the dense form with its time and memory, in bfloat16
# one      one stream of 2,048: the same, and the layer of PyPI, in bfloat16 and float32
# lengths  prefill and decoding from 512 to 1,048,576 tokens; flatness, decode ratios, state and crossover as rows of their own
# model    the 12-layer hybrid's training step against its twin's; compiled: the same by torch.compile
#
# Needs torch with CUDA, triton, numpy, safetensors and jaxtyping. Gated DeltaNet runs as flash-linear-attention where that is
# installed and right (GDN=torch or fla insists), and the rows say which; `one` also fast-weight-product-key-memory; `tests` and `suite` also pytest, hypothesis and beartype.
# Every benchmark refuses to time anything if what it times and the definition differ on this GPU. Run `tests` first.
# Rows name the commit: from the repository, or FWPKM_COMMIT where there is none. A tree that differs from it is refused,
# unless ALLOW_DIRTY=1. A step's exit code is not 0 if any of its commands failed.
set -uo pipefail
cd "$(dirname "$0")/.."
step=${1:?a step: tests, kernels, suite, paper, one, lengths, model or compiled} out=${2:?a folder for the results}
mkdir -p "$out"
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}" TRITON_INTERPRET=0 CUBLAS_WORKSPACE_CONFIG=:4096:8
export FWPKM_TRACEBACK=1 PYTHONUNBUFFERED=1 PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 # what other plugins warn of would be errors
python=${PYTHON:-python3}
status=0
quiet="-q -p no:cacheprovider"

bench() {
  local name=$1
  shift
  "$python" -c 'import sys; from fwpkm.cli.main import main; sys.exit(main(sys.argv[1:]))' bench "$@" \
    --device "${DEVICE:-cuda}" --append "$out/$name.csv" ${ALLOW_DIRTY:+--allow-dirty} 2>&1 |
    tee -a "$out/$name.txt" || status=$?
}

case $step in
tests) # interrupted in time, pytest still says what failed
  timeout -s INT 540 "$python" -m pytest -v -p no:cacheprovider --junitxml="$out/tests.xml" \
    tests/ops/triton_kernels/test_triton_on_gpu.py tests/layers/test_step_graph.py \
    tests/ops/delta_rule/test_delta_rule_on_gpu.py tests/ops/units tests/layers/test_launches.py 2>&1 | tee "$out/tests.txt" || status=$? ;;
kernels)
  "$python" -m fwpkm.bench.kernels_triton 90:fp32 90:bf16 >"$out/kernels.jsonl" 2>"$out/kernels.err" || status=$? ;;
suite) # sparse faults: memory errors of small cases, where the toolkit is installed
  command -v compute-sanitizer >/dev/null || { echo "suite: compute-sanitizer is not installed"; exit 0; }
  export PYTORCH_NO_CUDA_MEMORY_CACHING=1 # within a cached block nothing is out of bounds
  for tool in memcheck racecheck; do
    timeout 280 compute-sanitizer --tool "$tool" --error-exitcode 9 "$python" -m pytest $quiet \
      tests/ops/triton_kernels/test_triton_on_gpu.py -k "any and (gradcheck_of_the_scan or odd_shapes and 65)" 2>&1 |
      tail -40 | tee "$out/$tool.txt" || status=$?
  done ;;
paper)
  bench compare compare --shape paper --dtype bfloat16 --runs 10 --systems fwpkm "fwpkm torch" gdn attention
  bench compare compare --shape paper --dtype bfloat16 --runs 3 --systems fwpkm dense ;;
one)
  bench compare compare --shape paper-one --dtype bfloat16 --runs 5
  bench compare compare --shape paper-one --dtype float32 --runs 5 ;;
lengths)
  bench lengths lengths --shape paper-one --dtype bfloat16 --plots "$out" \
    --lengths 512 1024 2048 4096 8192 16384 32768 65536 131072 262144 524288 1048576 ;;
model) # a part at a time too, should eight streams at once be too many for the device
  for parts in 1 4; do
    bench twins twins paper/gdn_fwpkm paper/gdn --streams 8 --tokens 4096 --runs 9 --parts $parts \
      --set "model.gated_delta_net.backend=${GDN:-auto}"
  done ;;
compiled) # the same two models as torch.compile makes them
  bench twins twins paper/gdn_fwpkm paper/gdn --streams 8 --tokens 4096 --runs 9 --parts 4 --compile \
    --set "model.gated_delta_net.backend=${GDN:-auto}" ;;
*) echo "gpu_session: STEP must be tests, kernels, suite, paper, one, lengths, model or compiled, got '$step'" >&2; exit 2 ;;
esac
exit "$status"
