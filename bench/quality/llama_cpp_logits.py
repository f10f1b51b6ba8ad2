#!/usr/bin/env python3
"""Writes llama.cpp's logits of given token ids, in windows, as raw f32: the rival's half of kl.py.

It runs in an environment of its own with llama-cpp-python, or with ik-llama-cpp-python, the fork with the faster CPU
kernels; `./run bench` makes both.
"""

import argparse
import ctypes

import numpy

try:
    import llama_cpp.llama_cpp as lib
except ImportError:
    import ik_llama_cpp._ctypes_api as lib


def clear(context):
    """Forgets the window before; the fork still has the older name."""
    if hasattr(lib, "llama_memory_clear"):
        lib.llama_memory_clear(lib.llama_get_memory(context), True)
    else:
        lib.llama_kv_cache_clear(context)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("ids", help="int32 token ids")
    parser.add_argument("out")
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--step", type=int, help="tokens of one llama_decode, by default a window's")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--extra-buffers", action="store_true",
                        help="let it repack weights; off, because llama-cpp-python 0.3.36 crashes so on a CPU with AMX")
    args = parser.parse_args()

    lib.llama_backend_init()
    model_parameters = lib.llama_model_default_params()
    if hasattr(model_parameters, "use_extra_bufts"):
        model_parameters.use_extra_bufts = args.extra_buffers
    model = lib.llama_model_load_from_file(args.model.encode(), model_parameters)
    if not model:
        raise SystemExit(f"{args.model}: llama.cpp cannot load it")
    parameters = lib.llama_context_default_params()
    parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = args.window
    parameters.n_threads = parameters.n_threads_batch = args.threads
    context = lib.llama_init_from_model(model, parameters)
    if not context:
        raise SystemExit("llama.cpp cannot make a context")
    vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
    batch = lib.llama_batch_init(args.window, 0, 1)
    ids = numpy.fromfile(args.ids, dtype=numpy.int32)
    with open(args.out, "wb") as out:
        for first in range(0, len(ids), args.window):
            window = ids[first : first + args.window]
            clear(context)
            for begin in range(0, len(window), args.step or args.window):
                tokens = window[begin : begin + (args.step or args.window)]
                batch.n_tokens = len(tokens)
                for i, token in enumerate(tokens):
                    batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = int(token), begin + i, 1, 1
                    batch.seq_id[i][0] = 0
                status = lib.llama_decode(context, batch)
                if status != 0:
                    raise SystemExit(f"llama_decode failed: {status}")
                rows = ctypes.cast(lib.llama_get_logits_ith(context, 0), ctypes.POINTER(ctypes.c_float))
                numpy.ctypeslib.as_array(rows, shape=(len(tokens), vocab)).tofile(out)


if __name__ == "__main__":
    main()
