"""CTranslate2: greedy search by its own loop; a converted model folder."""

import time

import ctranslate2
import worker


class Engine:
    def __init__(self, model, threads, compute_type):
        self.version = f"ctranslate2 {ctranslate2.__version__}"
        self.settings = {"compute_type": compute_type}
        self.generator = ctranslate2.Generator(
            model, device="cpu", compute_type=compute_type, inter_threads=1, intra_threads=threads)
        self.vocabulary = None
        with open(f"{model}/vocabulary.json", encoding="utf-8") as file:
            import json

            self.vocabulary = json.load(file)

    def run(self, batch, prompt, tokens):
        prompts = [[self.vocabulary[i] for i in ids] for ids in worker.prompt_ids(batch, prompt, len(self.vocabulary))]
        start = time.perf_counter()
        results = self.generator.generate_batch(
            prompts, beam_size=1, sampling_topk=1, max_length=tokens, min_length=tokens, include_prompt_in_result=False)
        seconds = time.perf_counter() - start
        if any(len(result.sequences_ids[0]) != tokens for result in results):
            raise RuntimeError("a sequence ended early")
        return seconds

    def prefill(self, batch, prompt):
        return self.run(batch, prompt, 1), batch * prompt

    def decode(self, batch, prompt, tokens):
        """The loop starts from a prompt: the time of the prompt and the first token is taken off."""
        first = min(self.run(batch, prompt, 1) for _ in range(2))
        return self.run(batch, prompt, tokens + 1) - first, batch * tokens


if __name__ == "__main__":
    worker.serve(Engine)
