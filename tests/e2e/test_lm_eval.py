"""lm-evaluation-harness, `local-completions`, unmodified, on a task of our own; its numbers against the server's own."""
import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("lm_eval")

QUESTIONS = [
    ("The herd grazes on the", [" high plain", " fire", " number of the dog"], 0),
    ("Where is the white one? she", [" asks", " grazes and", " twelve"], 0),
    ("When the work is done, the fire is", [" lit", " missing", " a young alpaca"], 1),
    ("Ein Jungtier heißt", [" Cria", " Lamm", " Kätzchen 🐈"], 0),
]
CHOICE = """task: cria_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
target_delimiter: ""
metric_list: [{{metric: acc}}]
"""
CONTINUE = """task: cria_continue
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{choices[0]}}}}"
generation_kwargs: {{until: ["\\n\\n", "Question:", "</s>"], max_gen_toks: 16}}
metric_list: [{{metric: exact_match}}]
"""


def evaluate(server, folder, batch_size):
    data = folder / "questions.jsonl"
    data.write_text("".join(json.dumps({"question": q, "choices": c, "answer": a}) + "\n" for q, c, a in QUESTIONS))
    (folder / "cria_choice.yaml").write_text(CHOICE.format(data=data))
    (folder / "cria_continue.yaml").write_text(CONTINUE.format(data=data))
    out = folder / "out"
    subprocess.run(
        [sys.executable, "-m", "lm_eval", "run", "--model", "local-completions", "--tasks", "cria_choice,cria_continue",
         "--include_path", str(folder), "--output_path", str(out), "--log_samples", "--batch_size", str(batch_size),
         "--model_args", f"base_url={server.url}/v1/completions,model={server.name},num_concurrent=2,max_retries=1"],
        check=True, timeout=300, stdout=subprocess.DEVNULL,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "hf")})
    samples = {}
    for task in ("cria_choice", "cria_continue"):
        path, = out.glob(f"**/samples_{task}_*.jsonl")
        samples[task] = sorted(map(json.loads, path.read_text().splitlines()), key=lambda s: s["doc_id"])
    return samples


def loglikelihood(server, context, continuation):
    """Sum over the continuation's tokens, and whether each is the greedy choice, from the server's own answer."""
    def ids(text):
        answer = server.request("POST", "/tokenize", {"prompt": text, "add_special_tokens": False})
        return answer.json["tokens"]

    whole = ids(context + continuation)
    values = server.complete(whole, max_tokens=1, echo=True, logprobs=1)["choices"][0]["logprobs"]
    start = len(ids(context))
    chosen, top = values["token_logprobs"][start:-1], values["top_logprobs"][start:-1]
    return sum(chosen), all(value == max(best.values()) for value, best in zip(chosen, top))


@pytest.mark.parametrize("which, batch_size", [("opt", 1), ("llama", 4)])
def test_lm_eval_reports_what_the_server_computes(which, batch_size, request, tmp_path):
    server = request.getfixturevalue(which)
    samples = evaluate(server, tmp_path, batch_size)
    for sample, (question, choices, _) in zip(samples["cria_choice"], QUESTIONS, strict=True):
        for response, choice in zip(sample["resps"], choices, strict=True):
            value, greedy = response[0]
            expected, expected_greedy = loglikelihood(server, question, choice)
            assert float(value) == pytest.approx(expected, abs=1e-5)
            assert str(greedy) == str(expected_greedy)
    for sample, (question, *_) in zip(samples["cria_continue"], QUESTIONS, strict=True):
        tokens = server.request("POST", "/tokenize", {"prompt": question, "add_special_tokens": False}).json["tokens"]
        direct = server.complete(tokens, max_tokens=16, stop=["\n\n", "Question:", "</s>"])["choices"][0]["text"]
        assert sample["resps"][0][0] == direct
