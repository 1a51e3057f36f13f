# lancet-onnx on a CPU, as a user without rights.
FROM python:3.12-slim AS build
# Where builds of torch without CUDA are, which save gigabytes; pip reads it from here.
ARG PIP_EXTRA_INDEX_URL=
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY lancet_onnx lancet_onnx
COPY cli cli
RUN python -m venv /opt/lancet-onnx \
    && /opt/lancet-onnx/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt .

FROM python:3.12-slim
COPY --from=build /opt/lancet-onnx /opt/lancet-onnx
RUN useradd --uid 10001 --create-home lancet
USER 10001
ENV PATH=/opt/lancet-onnx/bin:$PATH
WORKDIR /models
ENTRYPOINT ["lancet-onnx"]
CMD ["--help"]
