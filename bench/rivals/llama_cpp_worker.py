"""llama.cpp (llama-cpp-python) and ik_llama.cpp (ik-llama-cpp-python), through the low-level calls of either package.

Batched decoding is what llama.cpp's own batched-bench does: one llama_decode per step with one token of every sequence.
"""

import ctypes
import importlib.metadata
import time

import numpy
import worker

try:
    import llama_cpp.llama_cpp as lib

    PACKAGE = "llama-cpp-python"
except ImportError:
    import ik_llama_cpp._ctypes_api as lib

    PACKAGE = "ik-llama-cpp-python"

LONGEST_STEP = 512


class Engine:
    def __init__(self, model, threads, sequences=16, context=1024, flash=None, repack=False):
        self.version = f"{PACKAGE} {importlib.metadata.version(PACKAGE)}"
        lib.llama_backend_init()
        model_params = lib.llama_model_default_params()
        if repack and hasattr(model_params, "repack_tensors"):
            model_params.repack_tensors = True
        self.model = lib.llama_model_load_from_file(model.encode(), model_params)
        if not self.model:
            raise RuntimeError(f"{model}: cannot be loaded")
        params = lib.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = max(context, 128 * sequences), LONGEST_STEP, LONGEST_STEP
        params.n_seq_max = sequences
        params.n_threads = params.n_threads_batch = threads
        if hasattr(params, "kv_unified"):
            params.kv_unified = True
        if flash is not None:
            name = "flash_attn_type" if hasattr(params, "flash_attn_type") else "flash_attn"
            setattr(params, name, int(flash) if name == "flash_attn_type" else bool(flash))
        self.context = lib.llama_init_from_model(self.model, params)
        if not self.context:
            raise RuntimeError(f"{model}: no context")
        self.settings = {"flash": flash, "repack": repack}
        self.vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self.model))
        self.batch = lib.llama_batch_init(LONGEST_STEP, 0, 1)

    def clear(self):
        if hasattr(lib, "llama_memory_clear"):
            lib.llama_memory_clear(lib.llama_get_memory(self.context), True)
        else:
            lib.llama_kv_cache_clear(self.context)

    def step(self, tokens):
        """tokens: (id, position, sequence, logits wanted); returns the most likely next id of each wanted row."""
        batch, wanted = self.batch, []
        batch.n_tokens = len(tokens)
        for i, (token, position, sequence, logits) in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, position, 1, int(logits)
            batch.seq_id[i][0] = sequence
            if logits:
                wanted.append(i)
        status = lib.llama_decode(self.context, batch)
        if status != 0:
            raise RuntimeError(f"llama_decode: {status}")
        rows = []
        for i in wanted:
            logits = ctypes.cast(lib.llama_get_logits_ith(self.context, i), ctypes.POINTER(ctypes.c_float))
            rows.append(int(numpy.ctypeslib.as_array(logits, shape=(self.vocab,)).argmax()))
        return rows

    def fill(self, prompts):
        """One step for each prompt, which must not be longer than LONGEST_STEP."""
        last = []
        for sequence, prompt in enumerate(prompts):
            end = len(prompt) - 1
            last += self.step([(token, at, sequence, at == end) for at, token in enumerate(prompt)])
        return last

    def prefill(self, batch, prompt):
        prompts = worker.prompt_ids(batch, prompt, self.vocab)
        self.clear()
        start = time.perf_counter()
        self.fill(prompts)
        return time.perf_counter() - start, batch * prompt

    def decode(self, batch, prompt, tokens):
        self.clear()
        last = self.fill(worker.prompt_ids(batch, prompt, self.vocab))
        start = time.perf_counter()
        for i in range(tokens):
            last = self.step([(token, prompt + i, sequence, True) for sequence, token in enumerate(last)])
        return time.perf_counter() - start, batch * tokens


if __name__ == "__main__":
    worker.serve(Engine)
