# Cria as an image: `docker build -t cria .`, then `docker run -p 8000:8000 cria` serves the default model.
# Another model: docker run -p 8000:8000 -v /my/models:/models cria serve /models/NAME --host 0.0.0.0
FROM debian:12-slim AS build
WORKDIR /src
# Packages and the model first: they change far less often than the source.
COPY run ./
RUN XDG_CACHE_HOME=/cache ./run model
COPY . .
RUN ./run build

FROM debian:12-slim
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      libcjson1 libglpk40 libmicrohttpd12 libopenmpi3 libpcre2-8-0 libsentencepiece0 libstdc++6 zlib1g openmpi-bin >/dev/null \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --no-create-home --home-dir /models --shell /usr/sbin/nologin cria \
 && install -d -o cria -g cria /models
COPY --from=build /src/build/cria /usr/local/bin/cria
COPY --from=build /cache/cria/SmolLM2-135M-Instruct.Q4_1.gguf /usr/share/cria/
USER cria
WORKDIR /models
VOLUME /models
EXPOSE 8000
# bash can open a socket by itself: the image needs no HTTP client.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8000 && printf 'GET /health HTTP/1.0\\r\\n\\r\\n' >&3 && head -n 1 <&3 | grep -q ' 200 '"]
ENTRYPOINT ["cria"]
CMD ["serve", "/usr/share/cria/SmolLM2-135M-Instruct.Q4_1.gguf", "--served-model-name", "SmolLM2-135M-Instruct", \
     "--host", "0.0.0.0", "--port", "8000"]
