# The command line on a CPU, with the pocket backbone and without CUDA libraries:
#   docker build --tag apa_lightning .
#   docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/work" apa_lightning predict --config pkg:predict.yaml \
#       --data.folder recordings --data.prompt "a recording of a violin solo"
FROM python:3.12-slim

# The builds for CPUs come from PyTorch's own index: those of PyPI bring several GB of CUDA libraries. torchvision is a dependency of timm.
# torchaudio 2.11 is built for torch 2.11; what setup.cfg requires is then already installed.
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu "torch==2.11.*" "torchaudio==2.11.*" torchvision

# The source is mounted, not copied: it leaves no layer. It is writable because a build writes next to it; nothing of that is kept.
RUN --mount=type=bind,target=/source,rw pip install --no-cache-dir "/source[evaluate]"

# Caches of any user go to /tmp, so that --user works with ids that the image does not know.
ENV HF_HOME=/tmp/huggingface NUMBA_CACHE_DIR=/tmp/numba MPLCONFIGDIR=/tmp/matplotlib
USER nobody
WORKDIR /work
ENTRYPOINT ["python", "-m", "apa_lightning"]
CMD ["--help"]
