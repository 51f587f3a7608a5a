# The README's commands in a container: docker build -t usucl . && docker run usucl usucl info
# With a GPU, take an image with the CUDA toolkit of torch's major version, such as
# --build-arg BASE=nvidia/cuda:13.0.2-devel-ubuntu24.04, and run with --gpus all.
ARG BASE=ubuntu:24.04
FROM ${BASE}

RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        g++ make python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /usucl
COPY . .
RUN make build
ENV PATH=/usucl/.venv/bin:$PATH
CMD ["usucl", "info"]
