# syntax=docker/dockerfile:1

# Images with the versions of constraints.txt, two that serve and one that trains:
#
#   docker build --target cpu      --tag rillcast:cpu      .
#   docker build --target cuda     --tag rillcast:cuda     .
#   docker build --target training --tag rillcast:training .
#
# The images have no compiler and no package installer, and those that serve no PyTorch. They run as an unprivileged user
# without a home, on a read-only root file system, and write to /state (state.store=local) and /tmp (models of a
# registry) only. /opt/rillcast/sbom.cdx.json lists every Python package in an image, in CycloneDX.
#
# Build arguments:
#
#   PYTHON_IMAGE                       another base, for example one with your certificate authority
#   PIP_INDEX_URL, UV_DEFAULT_INDEX    your package index (both: pip installs uv, uv installs the rest)
#   EXTRAS, PACKAGES                   more than the image needs by itself, for example
#                                      --build-arg EXTRAS=s3, or EXTRAS=object-store with PACKAGES=gcsfs
#   TORCH_BACKEND                      PyTorch of the training image: cpu, or for Jobs with a GPU for example cu130, or
#                                      index: the one that your package index has
#   TORCH_INDEX_URL                    your own index that has PyTorch, in place of PyTorch's
#   VERSION, REVISION, CREATED         the version, commit and time, for the image's labels (`make image` sets them)

ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG UV_VERSION=0.13.9
ARG PIP_INDEX_URL
ARG UV_DEFAULT_INDEX
ARG EXTRAS=
ARG PACKAGES=
# System certificates: those of a base image with your certificate authority.
ENV UV_NO_CACHE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_SYSTEM_CERTS=1 PIP_NO_CACHE_DIR=1
RUN python -m pip install --quiet --disable-pip-version-check "uv==${UV_VERSION}"
WORKDIR /src
COPY pyproject.toml constraints.txt ./
COPY deploy/container deploy/container

FROM build AS build-cpu
RUN deploy/container/install.sh dependencies cpu /opt/rillcast
COPY README.md LICENSE ./
COPY pipeline pipeline
COPY training training
RUN deploy/container/install.sh package /opt/rillcast
RUN deploy/container/install.sh sbom /opt/rillcast

FROM build AS build-cuda
RUN deploy/container/install.sh dependencies cuda /opt/rillcast
COPY README.md LICENSE ./
COPY pipeline pipeline
COPY training training
RUN deploy/container/install.sh package /opt/rillcast
RUN deploy/container/install.sh sbom /opt/rillcast

FROM build AS build-training
ARG TORCH_BACKEND=cpu
ARG TORCH_INDEX_URL
RUN deploy/container/install.sh dependencies training /opt/rillcast
COPY README.md LICENSE ./
COPY pipeline pipeline
COPY training training
RUN deploy/container/install.sh package /opt/rillcast
RUN deploy/container/install.sh sbom /opt/rillcast

FROM ${PYTHON_IMAGE} AS serving
ARG PYTHON_IMAGE
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title=rillcast \
    org.opencontainers.image.description="Streaming time-series forecasting: one recurrent step per event" \
    org.opencontainers.image.licenses=Apache-2.0 \
    org.opencontainers.image.version=${VERSION} \
    org.opencontainers.image.revision=${REVISION} \
    org.opencontainers.image.created=${CREATED} \
    org.opencontainers.image.base.name=${PYTHON_IMAGE}
RUN python -m pip uninstall --quiet --yes pip setuptools wheel \
    && mkdir /models /state \
    && chown 65532:65532 /state
ENV PATH=/opt/rillcast/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1 \
    RILLCAST_MODEL=/models/model.onnx \
    RILLCAST_MODEL_CACHE=/tmp/rillcast/models \
    RILLCAST_STATE__PATH=/state \
    RILLCAST_HTTP__HOST=0.0.0.0 \
    RILLCAST_LOG__FORMAT=json
WORKDIR /
USER 65532:65532
EXPOSE 9464
STOPSIGNAL SIGTERM
# Liveness only: a container must not be restarted because a broker is unavailable. Kubernetes uses its own probes.
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9464/livez', timeout=4)"]
ENTRYPOINT ["rillcast"]
CMD ["run"]

FROM serving AS cpu
COPY --from=build-cpu /opt/rillcast /opt/rillcast
ENV RILLCAST_DEVICE=cpu

FROM serving AS cuda
COPY --from=build-cuda /opt/rillcast /opt/rillcast
# /usr/local/nvidia/lib64 is where GKE mounts the driver; NVIDIA's container toolkit puts it on the linker's own path.
# With device=cuda a missing GPU is an error at the start, never a silent fallback to the CPU.
ENV RILLCAST_DEVICE=cuda \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    LD_LIBRARY_PATH=/usr/local/nvidia/lib64:/opt/rillcast/lib/python3.11/site-packages/nvidia/cu13/lib:/opt/rillcast/lib/python3.11/site-packages/nvidia/cudnn/lib

FROM serving AS training
COPY --from=build-training /opt/rillcast /opt/rillcast
ENV RILLCAST_DEVICE=cpu \
    MPLCONFIGDIR=/tmp
CMD ["train", "--help"]
