#!/bin/sh
# Makes the Python environment of an image: no compiler, no package installer, versions from constraints.txt.
#
#   install.sh dependencies cpu|cuda|training VENV    make VENV and install the dependencies of Rillcast
#   install.sh package VENV                           install Rillcast itself into VENV
#   install.sh sbom VENV                              write VENV/sbom.cdx.json: what is in VENV, in CycloneDX
#
# The Dockerfile runs each step in its own layer, because code changes more often than dependencies.
# EXTRAS and PACKAGES in the environment name more extras of Rillcast and other packages, in words. The variant
# `training` takes PyTorch from PyTorch's index of TORCH_BACKEND (cpu), or from TORCH_INDEX_URL where that is set;
# TORCH_BACKEND=index takes what the index of all other packages has.
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
        # PyPI's PyTorch brings CUDA, which a Job on CPUs does not use. The versions are pinned on every index.
        training)
            set -- --overrides deploy/container/cpu-overrides.txt onnxruntime --extra training
            if [ -n "${TORCH_INDEX_URL:-}" ]; then
                set -- "$@" --index "$TORCH_INDEX_URL" --index-strategy unsafe-best-match
            elif [ "${TORCH_BACKEND:-cpu}" != index ]; then
                set -- "$@" --torch-backend "${TORCH_BACKEND:-cpu}"
            fi
            ;;
        *) echo "install.sh: variant is cpu, cuda or training, not '$variant'" >&2; exit 2 ;;
    esac
    # shellcheck disable=SC2086  # extras and packages are words
    uv pip install --quiet --python "$venv/bin/python" --only-binary :all: --compile-bytecode \
        --constraints constraints.txt --requirements pyproject.toml \
        $extras ${PACKAGES:-} "$@"
}

package() {
    uv pip install --quiet --python "$1/bin/python" --no-deps --compile-bytecode \
        --build-constraints constraints.txt .
}

sbom() {
    tools=$(mktemp -d)
    uv venv --quiet --python "${PYTHON:-python3}" "$tools/venv"
    uv pip install --quiet --python "$tools/venv/bin/python" --requirements deploy/container/sbom-requirements.txt
    "$tools/venv/bin/cyclonedx-py" environment --output-reproducible --output-format JSON --pyproject pyproject.toml \
        --output-file "$1/sbom.cdx.json" "$1/bin/python"
    rm -r "$tools"
}

step=${1:?dependencies, package or sbom}
shift
case $step in
    dependencies | package | sbom) "$step" "$@" ;;
    *) echo "install.sh: step is dependencies, package or sbom, not '$step'" >&2; exit 2 ;;
esac
