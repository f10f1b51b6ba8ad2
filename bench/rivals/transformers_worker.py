"""transformers on torch: eager with a growing cache, or torch.compile with a static one; a loop of its own, since
generate() costs more than a step of a small model."""

import time

import torch
import transformers
import worker
from transformers import AutoModelForCausalLM, DynamicCache, StaticCache


class Engine:
    def __init__(self, model, threads, dtype, compiled=False, longest=1024):
        torch.set_num_threads(threads)
        self.version = f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}"
        self.settings = {"dtype": dtype, "compiled": compiled}
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype)).eval()
        self.forward = torch.compile(self.model, dynamic=False) if compiled else self.model
        self.compiled, self.longest = compiled, longest

    @torch.inference_mode()
    def step(self, ids, past, cache):
        positions = torch.arange(past, past + ids.shape[1])
        inputs = {"input_ids": ids, "past_key_values": cache, "use_cache": True, "logits_to_keep": 1}
        if self.compiled:
            inputs["cache_position"], inputs["position_ids"] = positions, positions[None].expand(ids.shape[0], -1)
        return self.forward(**inputs).logits[:, -1].argmax(dim=-1, keepdim=True)

    def cache(self, length):
        if self.compiled:
            return StaticCache(config=self.model.config, max_cache_len=length)
        return DynamicCache(config=self.model.config)

    def prefill(self, batch, prompt):
        ids = torch.tensor(worker.prompt_ids(batch, prompt, self.model.config.vocab_size))
        cache = self.cache(prompt)
        start = time.perf_counter()
        self.step(ids, 0, cache)
        return time.perf_counter() - start, batch * prompt

    def decode(self, batch, prompt, tokens):
        ids = torch.tensor(worker.prompt_ids(batch, prompt, self.model.config.vocab_size))
        cache = self.cache(prompt + tokens)
        last = self.step(ids, 0, cache)
        start = time.perf_counter()
        for i in range(tokens):
            last = self.step(last, prompt + i, cache)
        return time.perf_counter() - start, batch * tokens


if __name__ == "__main__":
    worker.serve(Engine)
