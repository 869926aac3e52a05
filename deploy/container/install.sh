#!/bin/sh
# Makes the Python environment of a serving image: no compiler, no torch, versions from constraints.txt.
#
#   install.sh dependencies cpu|cuda VENV    make VENV and install the dependencies of Rillcast
#   install.sh package VENV                  install Rillcast itself into VENV
#
# The Dockerfile runs each step in its own layer, because code changes more often than dependencies.
# EXTRAS and PACKAGES in the environment name more extras of Rillcast and other packages, in words.
# tests/integration/deploy/test_container.py runs the same steps in a clean directory. Needs uv on the PATH.
set -eu
cd "$(dirname "$0")/../.."

extras="--extra librdkafka --extra registry"
for extra in ${EXTRAS:-}; do
    extras="$extras --extra $extra"
done

dependencies() {
    variant=$1 venv=$2
    uv venv --quiet --python "${PYTHON:-python3}" "$venv"
    case $variant in
        # The GPU build of ONNX Runtime is several times larger, and its CPU provider is the same.
        cpu) set -- --overrides deploy/container/cpu-overrides.txt onnxruntime ;;
        # CUDA and cuDNN come as pinned wheels, not from another base image.
        cuda) set -- --extra cuda ;;
        *) echo "install.sh: variant is cpu or cuda, not '$variant'" >&2; exit 2 ;;
    esac
    # shellcheck disable=SC2086  # extras and packages are words
    uv pip install --quiet --python "$venv/bin/python" --only-binary :all: --compile-bytecode \
        --constraints constraints.txt --requirements pyproject.toml $extras ${PACKAGES:-} "$@"
}

package() {
    uv pip install --quiet --python "$1/bin/python" --no-deps --compile-bytecode \
        --build-constraints constraints.txt .
}

step=${1:?dependencies or package}
shift
case $step in
    dependencies | package) "$step" "$@" ;;
    *) echo "install.sh: step is dependencies or package, not '$step'" >&2; exit 2 ;;
esac
