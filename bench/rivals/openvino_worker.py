"""OpenVINO: a model exported by optimum-intel, as a stateful request driven token by token."""

import time

import numpy
import openvino
import worker


class Engine:
    def __init__(self, model, threads, vocab, precision=None):
        self.version = f"openvino {openvino.__version__.split('-')[0]}"
        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        if precision:
            settings["INFERENCE_PRECISION_HINT"] = precision
        self.settings = {"precision": precision}
        self.vocab = vocab
        compiled = openvino.Core().compile_model(f"{model}/openvino_model.xml", "CPU", settings)
        self.request = compiled.create_infer_request()
        self.inputs = {name for port in compiled.inputs for name in port.names}

    def step(self, ids, past):
        batch, length = ids.shape
        feed = {"input_ids": ids, "attention_mask": numpy.ones((batch, past + length), numpy.int64)}
        if "position_ids" in self.inputs:
            feed["position_ids"] = numpy.tile(numpy.arange(past, past + length, dtype=numpy.int64), (batch, 1))
        if "beam_idx" in self.inputs:
            feed["beam_idx"] = numpy.arange(batch, dtype=numpy.int32)
        self.request.infer(feed, share_inputs=True)
        return self.request.get_tensor("logits").data[:, -1, :].argmax(axis=1).astype(numpy.int64)[:, None]

    def prefill(self, batch, prompt):
        ids = numpy.array(worker.prompt_ids(batch, prompt, self.vocab), numpy.int64)
        self.request.reset_state()
        start = time.perf_counter()
        self.step(ids, 0)
        return time.perf_counter() - start, batch * prompt

    def decode(self, batch, prompt, tokens):
        self.request.reset_state()
        last = self.step(numpy.array(worker.prompt_ids(batch, prompt, self.vocab), numpy.int64), 0)
        start = time.perf_counter()
        for i in range(tokens):
            last = self.step(last, prompt + i)
        return time.perf_counter() - start, batch * tokens


if __name__ == "__main__":
    worker.serve(Engine)
