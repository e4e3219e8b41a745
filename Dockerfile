# docker build -t mmdisaster . && docker run --rm -it mmdisaster        (make repro: every table and figure)
FROM python:3.11-slim-bookworm
RUN apt-get update && apt-get install --yes --no-install-recommends make git && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home reader
USER reader
WORKDIR /home/reader/mmdisaster
COPY --chown=reader . .
RUN make .venv/installed
ENV PATH=/home/reader/mmdisaster/.venv/bin:$PATH
CMD ["make", "repro"]
