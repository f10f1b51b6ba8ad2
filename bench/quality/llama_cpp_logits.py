#!/usr/bin/env python3
"""Writes llama.cpp's logits of given token ids, in windows, as raw f32: the rival's half of kl.py.

It runs in an environment of its own with one of these packages, the first that is found:
  llama-cpp-python      llama.cpp, built from source on installation
  ik-llama-cpp-python   the fork with the faster CPU kernels
  xllamacpp             llama.cpp as a wheel; it has no low-level Python calls, but its library exports llama.h's
"""

import argparse
import ctypes
import importlib.util
import pathlib

import numpy


class Parameters(ctypes.Structure):
    """A parameter struct of llama.h that is only passed on, so that its members need not be known, just its most size."""

    _fields_ = [("words", ctypes.c_int32 * 128)]


class Batch(ctypes.Structure):
    _fields_ = [
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.POINTER(ctypes.c_float)),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    ]


LIBRARIES = (
    ("llama_cpp", "lib/libllama.so"),
    ("ik_llama_cpp", "lib/libllama.so"),
    ("xllamacpp", "xllamacpp.abi3.so"),
)


def open_library():
    for module, name in LIBRARIES:
        spec = importlib.util.find_spec(module)
        if spec and spec.origin:
            path = pathlib.Path(spec.origin).parent / name
            if path.exists():
                # An extension module leaves Python's own symbols open; those of this process fill them.
                for sibling in sorted(path.parent.glob("libggml*.so")):
                    ctypes.CDLL(str(sibling), mode=ctypes.RTLD_GLOBAL)
                return module, ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    raise SystemExit("none of " + ", ".join(name for name, _ in LIBRARIES) + " is installed here")


def declare(library):
    pointer = ctypes.c_void_p
    calls = {
        "llama_backend_init": (None, []),
        "llama_print_system_info": (ctypes.c_char_p, []),
        "llama_model_default_params": (Parameters, []),
        "llama_context_default_params": (Parameters, []),
        "llama_model_load_from_file": (pointer, [ctypes.c_char_p, Parameters]),
        "llama_init_from_model": (pointer, [pointer, Parameters]),
        "llama_set_n_threads": (None, [pointer, ctypes.c_int32, ctypes.c_int32]),
        "llama_batch_init": (Batch, [ctypes.c_int32, ctypes.c_int32, ctypes.c_int32]),
        "llama_decode": (ctypes.c_int32, [pointer, Batch]),
        "llama_get_logits": (ctypes.POINTER(ctypes.c_float), [pointer]),
    }
    for name, (result, arguments) in calls.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments


def clear(library, context):
    """Forgets the window before; the fork still has the older name."""
    if hasattr(library, "llama_get_memory"):
        library.llama_get_memory.restype = ctypes.c_void_p
        library.llama_memory_clear(ctypes.c_void_p(library.llama_get_memory(ctypes.c_void_p(context))), True)
    else:
        library.llama_kv_cache_clear(ctypes.c_void_p(context))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("ids", help="int32 token ids")
    parser.add_argument("out")
    parser.add_argument("--window", type=int, default=512, help="at most 512, the default context")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="WORD=VALUE",
                        help="change a 32-bit word of llama_context_params; where it lies depends on the version")
    parser.add_argument("--show", action="store_true", help="print the default llama_context_params as words")
    args = parser.parse_args()
    if args.window > 512:
        raise SystemExit("--window: at most 512")

    module, library = open_library()
    declare(library)
    library.llama_backend_init()
    parameters = library.llama_context_default_params()
    if args.show:
        print(list(parameters.words)[:36])
    for change in args.set:
        word, value = change.split("=")
        parameters.words[int(word)] = int(value)
    model = library.llama_model_load_from_file(args.model.encode(), library.llama_model_default_params())
    if not model:
        raise SystemExit(f"{args.model}: llama.cpp cannot load it")
    context = library.llama_init_from_model(model, parameters)
    if not context:
        raise SystemExit("llama.cpp cannot make a context")
    library.llama_set_n_threads(context, args.threads, args.threads)
    print(module, (library.llama_print_system_info() or b"").decode())

    ids = numpy.fromfile(args.ids, dtype=numpy.int32)
    vocab = None
    with open(args.out, "wb") as out:
        for first in range(0, len(ids), args.window):
            window = ids[first : first + args.window]
            clear(library, context)
            batch = library.llama_batch_init(len(window), 0, 1)
            batch.n_tokens = len(window)
            for i, token in enumerate(window):
                batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = int(token), i, 1, 1
                batch.seq_id[i][0] = 0
            status = library.llama_decode(context, batch)
            if status != 0:
                raise SystemExit(f"llama_decode failed: {status}")
            if vocab is None:
                vocab = vocabulary(library, model)
            logits = library.llama_get_logits(context)
            numpy.ctypeslib.as_array(logits, shape=(len(window), vocab)).tofile(out)


def vocabulary(library, model):
    library.llama_model_get_vocab.restype = ctypes.c_void_p
    vocab = library.llama_model_get_vocab(ctypes.c_void_p(model))
    library.llama_vocab_n_tokens.restype = ctypes.c_int32
    return library.llama_vocab_n_tokens(ctypes.c_void_p(vocab))


if __name__ == "__main__":
    main()
