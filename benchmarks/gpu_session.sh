#!/usr/bin/env bash
# What a machine with a CUDA GPU is to say about the Triton kernels, in steps of less than ten minutes each:
#
#   benchmarks/gpu_session.sh STEP OUT      STEP: tests | suite | paper | lengths | model;   OUT: a folder for what it finds
#
# Needs torch with CUDA, triton, numpy, safetensors and jaxtyping; `tests` and `suite` also pytest, hypothesis and beartype.
# Every benchmark refuses to time anything if the kernels and the definition differ on this GPU. Run `tests` first.
set -uo pipefail
cd "$(dirname "$0")/.."
step=${1:?a step: tests, suite, paper, lengths or model} out=${2:?a folder for the results}
mkdir -p "$out"
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}" TRITON_INTERPRET=0 CUBLAS_WORKSPACE_CONFIG=:4096:8
export PYTHONUNBUFFERED=1 PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 # what other plugins warn of would be errors
python=${PYTHON:-python3}
bench() { "$python" -c 'import sys; from fwpkm.cli.main import main; sys.exit(main(sys.argv[1:]))' bench "$@"; }
quiet="-q -p no:cacheprovider"

case $step in
tests) # parity, gradients, poison, races; then what the compiler says of registers and spills on this very version
  "$python" -m pytest $quiet tests/ops/triton_kernels/test_triton_on_gpu.py --junitxml="$out/tests.xml" 2>&1 | tee "$out/tests.txt"
  status=${PIPESTATUS[0]}
  "$python" -m fwpkm.bench.kernels_triton 90:fp32 90:bf16 >"$out/kernels.jsonl" 2>"$out/kernels.err"
  exit "$status" ;;
suite) # sparse faults: memory errors of small cases, where the toolkit is installed
  command -v compute-sanitizer >/dev/null || { echo "suite: compute-sanitizer is not installed"; exit 0; }
  export PYTORCH_NO_CUDA_MEMORY_CACHING=1 # within a cached block nothing is out of bounds
  for tool in memcheck racecheck; do
    timeout 280 compute-sanitizer --tool "$tool" --error-exitcode 9 "$python" -m pytest $quiet \
      tests/ops/triton_kernels/test_triton_on_gpu.py -k "any and (gradcheck_of_the_scan or odd_shapes and 65)" 2>&1 | tail -40 | tee "$out/$tool.txt"
  done ;;
paper) # eight streams of 4,096; dense forms and the peer fit one stream only
  bench compare --shape paper --dtype bfloat16 --systems fwpkm "fwpkm torch" gdn attention --append "$out/compare.csv"
  bench compare --shape paper-one --dtype bfloat16 --runs 5 --append "$out/compare.csv"
  bench compare --shape paper-one --dtype float32 --runs 5 --append "$out/compare.csv" ;;
lengths)
  bench lengths --shape paper-one --dtype bfloat16 --lengths 4096 16384 65536 131072 262144 524288 1048576 \
    --append "$out/lengths.csv" --plots "$out" ;;
model) # the whole hybrid against its twin without FwPKM
  bench twins paper/gdn_fwpkm paper/gdn --streams 8 --tokens 4096 --runs 5 --append "$out/twins.csv" ;;
*) echo "gpu_session: STEP must be tests, suite, paper, lengths or model, got '$step'" >&2; exit 2 ;;
esac
