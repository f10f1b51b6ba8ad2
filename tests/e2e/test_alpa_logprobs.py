"""Alpa's /logprobs: the next token's log-probabilities, and the KV cache that a cache_id names."""
import math

import pytest
from server import FIXTURES, Server

PROMPT = [2] + list(range(40, 90))


@pytest.fixture(scope="module")
def server():
    with Server(FIXTURES / "models" / "opt-f16-text", "--block-size", 16, name="m") as server:
        yield server


def ask(server, status=200, **body):
    answer = server.request("POST", "/logprobs", body)
    assert answer.status == status, answer.body
    return answer.json


def hits(server, **body):
    before = server.metrics()["vllm:prefix_cache_hits_total"]
    answer = ask(server, **body)
    return answer, server.metrics()["vllm:prefix_cache_hits_total"] - before


def test_the_answer_has_the_most_likely_next_tokens_of_each_prompt_in_order(server):
    answer = ask(server, prompt=[PROMPT, PROMPT[:9]], top_k=20)
    assert set(answer) == {"cache_id", "logprobs", "indices"} and answer["cache_id"]
    for i, prompt in enumerate((PROMPT, PROMPT[:9])):
        logprobs, indices = answer["logprobs"][i], answer["indices"][i]
        assert len(logprobs) == len(set(indices)) == 20 and logprobs == sorted(logprobs, reverse=True)
        top = server.complete(prompt, max_tokens=1, logprobs=20, return_tokens_as_token_ids=True)
        named = top["choices"][0]["logprobs"]["top_logprobs"][0]
        assert {f"token_id:{index}": value for index, value in zip(indices, logprobs)} == named


def test_top_k_is_50_unless_asked_and_the_whole_distribution_sums_to_one_or_less(server):
    assert len(ask(server, prompt=PROMPT)["indices"][0]) == 50
    answer = ask(server, prompt=PROMPT, top_k=100)
    assert len(answer["indices"][0]) == 100 and 0 < sum(map(math.exp, answer["logprobs"][0])) <= 1 + 1e-5


def test_a_text_is_tokenized_as_everywhere_else(server):
    ids = server.request("POST", "/tokenize", {"prompt": "The herd"}).json["tokens"]
    by_text, by_ids = ask(server, prompt="The herd"), ask(server, prompt=[ids])
    assert (by_text["logprobs"], by_text["indices"]) == (by_ids["logprobs"], by_ids["indices"])


def test_a_follow_up_that_names_the_cache_id_reuses_the_kv_cache_and_gets_the_same_numbers(server):
    """Alpa's loop: the prompts grow by one token each time. Of 51 tokens three blocks of 16 are there already."""
    prompts = [PROMPT, PROMPT[::-1]]
    answer, found = hits(server, prompt=prompts, top_k=10)
    assert found == 0
    for step in range(3):
        prompts = [prompt + [answer["indices"][i][0]] for i, prompt in enumerate(prompts)]
        fresh, found = hits(server, prompt=prompts, top_k=10)
        assert found == 0, "another's cache was read"
        answer, found = hits(server, prompt=prompts, top_k=10, cache_id=answer["cache_id"])
        assert found == 2 * 48
        assert (answer["logprobs"], answer["indices"]) == (fresh["logprobs"], fresh["indices"])
        assert answer["cache_id"] != fresh["cache_id"]


def test_the_cache_id_stays_the_same_and_one_that_was_never_given_is_only_slower(server):
    first = ask(server, prompt=PROMPT)
    assert ask(server, prompt=PROMPT, cache_id=first["cache_id"])["cache_id"] == first["cache_id"]
    answer, found = hits(server, prompt=PROMPT, cache_id="never-given")
    assert found == 0 and answer["logprobs"] == first["logprobs"]


@pytest.mark.parametrize("body, key", [
    ({}, "prompt"), ({"prompt": []}, "prompt"), ({"prompt": PROMPT, "top_k": 0}, "top_k"), ({"prompt": [320]}, "vocabulary"),
    ({"prompt": PROMPT, "top_k": 101}, "top_k"), ({"prompt": PROMPT, "top_k": "many"}, "top_k"),
    ({"prompt": PROMPT, "cache_id": 5}, "cache_id"), ({"prompt": PROMPT, "cache_id": "x" * 1000}, "cache_id"),
    ({"prompt": [5] * 5000}, "input_tokens")])
def test_what_makes_no_sense_is_refused_by_name(server, body, key):
    error = ask(server, status=400, **body)["error"]
    assert error["code"] == 400 and key in f"{error['param']} {error['message']}"
