"""Every request parameter of the completions route has the effect that its name promises, null means absent, and a value
of the wrong type is a 400 that names the key."""
import json
import socket

import pytest
from server import events_of

EOS = 2
IDS = [2, 50, 60, 70]
FREE = {"temperature": 1, "seed": 5, "ignore_eos": True, "max_tokens": 12}


def ask(server, prompt=IDS, **parameters):
    """Ids of the first choice, and that choice."""
    choice = server.complete(prompt, return_token_ids=True, **parameters)["choices"][0]
    return choice["token_ids"], choice


def refused(server, body, status=400):
    answer = server.request("POST", "/v1/completions", {"prompt": IDS, **body})
    assert answer.status == status, answer.body[:300]
    return answer.json["error"]


def test_model_may_be_left_out_and_a_wrong_one_is_a_404_that_lists_the_right_one(opt):
    assert opt.request("POST", "/v1/completions", {"prompt": "a"}).json["model"] == opt.name
    error = refused(opt, {"model": "gpt-5"}, 404)
    assert error["param"] == "model" and "gpt-5" in error["message"] and opt.name in error["message"]


def test_prompt_is_a_text_ids_or_a_list_of_either(opt):
    def answers(prompt):
        return [choice["text"] for choice in opt.complete(prompt)["choices"]]

    text, ids = "The herd", opt.request("POST", "/tokenize", {"prompt": "The herd"}).json["tokens"]
    one = answers(text)
    assert answers(ids) == one
    assert answers([text]) == answers([ids]) == one
    assert answers([text, "a"]) == answers([ids, "a"][:1]) + answers("a")


def test_max_tokens_is_how_many_come_and_min_tokens_how_many_at_least(opt):
    ended = {"logit_bias": {str(EOS): 100}, "max_tokens": 9}
    ids, choice = ask(opt, max_tokens=7, ignore_eos=True)
    assert len(ids) == 7 and choice["finish_reason"] == "length"
    ids, choice = ask(opt, **ended)
    assert ids == [EOS] and choice["finish_reason"] == "stop"
    ids, choice = ask(opt, min_tokens=4, **ended)
    assert len(ids) == 5 and ids[-1] == EOS and EOS not in ids[:4]
    assert "min_tokens" in refused(opt, {"min_tokens": 10, "max_tokens": 9})["message"]


def test_ignore_eos_goes_on_behind_it(opt):
    ids, choice = ask(opt, logit_bias={str(EOS): 100}, ignore_eos=True, max_tokens=4)
    assert ids == [EOS] * 4 and choice["finish_reason"] == "length"


def test_without_max_tokens_sixteen_come(opt):
    answer = opt.request("POST", "/v1/completions", {"prompt": IDS, "ignore_eos": True, "temperature": 0})
    assert answer.json["usage"]["completion_tokens"] == 16


def test_temperature_zero_is_greedy_and_a_high_one_is_not(opt):
    greedy, _ = ask(opt, max_tokens=12, ignore_eos=True)
    assert ask(opt, **{**FREE, "temperature": 1e-4})[0] == greedy
    assert ask(opt, **{**FREE, "temperature": 2})[0] != greedy


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1}])
def test_top_k_top_p_and_min_p_leave_only_the_likeliest_in_the_end(opt, narrow):
    greedy, _ = ask(opt, max_tokens=12, ignore_eos=True)
    assert ask(opt, **FREE, **narrow)[0] == greedy
    assert ask(opt, **FREE)[0] != greedy
    wide = {"top_k": -1, "top_p": 1, "min_p": 0}
    assert ask(opt, **FREE, **wide)[0] == ask(opt, **FREE)[0]


def test_seed_decides_what_is_sampled(opt):
    runs = [ask(opt, **{**FREE, "seed": seed})[0] for seed in (1, 1, 2, -7, 2 ** 62)]
    assert runs[0] == runs[1]
    assert len({tuple(ids) for ids in runs}) == 4


def test_n_gives_choices_in_order_and_best_of_the_likeliest_of_them(opt):
    many = opt.complete(IDS, n=5, logprobs=0, **FREE)["choices"]
    assert [choice["index"] for choice in many] == [0, 1, 2, 3, 4]
    assert len({choice["text"] for choice in many}) == 5
    best = max(many, key=lambda choice: sum(choice["logprobs"]["token_logprobs"]))
    found = opt.complete(IDS, best_of=5, **FREE)
    assert [choice["text"] for choice in found["choices"]] == [best["text"]]
    assert found["choices"][0]["logprobs"] is None  # ranked by them, but nobody asked
    assert "best_of" in refused(opt, {"n": 3, "best_of": 2, "temperature": 1})["message"]


@pytest.mark.parametrize("count", [0, 1, 5, 20])
def test_logprobs_is_how_many_alternatives_are_named(opt, count):
    values = opt.complete(IDS, max_tokens=3, ignore_eos=True, logprobs=count, return_tokens_as_token_ids=True)["choices"][0]["logprobs"]
    assert [len(top) for top in values["top_logprobs"]] == [max(count, 1)] * 3
    for token, value, top in zip(values["tokens"], values["token_logprobs"], values["top_logprobs"]):
        assert top[token] == value == max(top.values())  # greedy
    assert opt.complete(IDS)["choices"][0]["logprobs"] is None


def test_prompt_logprobs_has_an_entry_for_every_token_of_the_prompt(opt):
    values = opt.complete(IDS, prompt_logprobs=2)["choices"][0]["prompt_logprobs"]
    assert values[0] is None and len(values) == len(IDS)
    for token, entry in zip(IDS[1:], values[1:]):
        assert 2 <= len(entry) <= 3 and str(token) in entry
        assert {"logprob", "rank", "decoded_token"} == set(entry[str(token)])
    echoed = opt.complete(IDS, echo=True, logprobs=2, max_tokens=1)["choices"][0]["logprobs"]["token_logprobs"]
    assert echoed[1:4] == [entry[str(token)]["logprob"] for token, entry in zip(IDS[1:], values[1:])]


def test_echo_puts_the_prompt_first_and_may_ask_for_nothing_else(opt):
    plain = opt.complete("The herd")["choices"][0]["text"]
    assert opt.complete("The herd", echo=True)["choices"][0]["text"] == "The herd" + plain
    alone = opt.complete("The herd", echo=True, max_tokens=0, logprobs=1)
    assert alone["choices"][0]["text"] == "The herd" and alone["usage"]["completion_tokens"] == 0
    assert len(alone["choices"][0]["logprobs"]["tokens"]) == alone["usage"]["prompt_tokens"]
    assert refused(opt, {"max_tokens": 0})["param"] == "max_tokens"


def test_stop_takes_a_text_or_up_to_sixteen_and_the_first_in_the_text_ends_it(opt):
    asked = {"max_tokens": 24, "ignore_eos": True, "allowed_token_ids": list(range(40, 90))}
    text = ask(opt, **asked)[1]["text"]
    first, second = text[5], next(c for c in text[6:] if c not in text[:6])
    choice = ask(opt, stop=[second, first], **asked)[1]
    assert (choice["text"], choice["stop_reason"]) == (text[:text.index(first)], first)
    assert ask(opt, stop=first, **asked)[1]["text"] == choice["text"]
    assert ask(opt, stop=[], **asked)[1]["text"] == text
    assert ask(opt, stop=["\u0001" + str(i) for i in range(16)], **asked)[1]["text"] == text
    assert "stop" in refused(opt, {"stop": ["\u0001" + str(i) for i in range(17)]})["param"]
    assert ask(opt, stop=first, include_stop_str_in_output=True, **asked)[1]["text"] == choice["text"] + first


def test_stop_token_ids_end_it_and_say_which(opt):
    ids, _ = ask(opt, max_tokens=10, ignore_eos=True)
    stop = ids[4]
    got, choice = ask(opt, max_tokens=10, ignore_eos=True, stop_token_ids=[stop])
    assert got == ids[:ids.index(stop) + 1]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", stop)


def test_penalties_make_way_for_what_was_said_less(opt):
    """Two tokens may come, and `a` is ahead of `b` by about 1.1 in each of three steps: for which pair that can be had by
    a bias is looked up first."""
    prompt, a, others = [2, 90], 50, list(range(51, 90))

    def raw(context):
        answer = opt.complete([[*context, token] for token in [a, *others]], echo=True, logprobs=0, max_tokens=0)
        values = [choice["logprobs"]["token_logprobs"][-1] for choice in answer["choices"]]
        return [values[0] - value for value in values[1:]]

    ahead = list(zip(*(raw(prompt + [a] * i) for i in range(3))))
    b, gaps = min(zip(others, ahead), key=lambda pair: max(pair[1]) - min(pair[1]))
    assert max(gaps) - min(gaps) < 0.5

    def steps(**penalty):
        bias = {str(a): 60 + 1.1 - (max(gaps) + min(gaps)) / 2, str(b): 60}
        ids, _ = ask(opt, prompt, max_tokens=3, ignore_eos=True, allowed_token_ids=[a, b], logit_bias=bias, **penalty)
        return "".join("ab"[token == b] for token in ids)

    assert steps() == "aaa"
    assert steps(presence_penalty=2).startswith("ab")
    assert steps(presence_penalty=0.7) == "aaa"  # once, however often it came
    assert steps(frequency_penalty=0.7) == "aab"  # every time
    assert steps(repetition_penalty=1.5).startswith("ab")
    assert steps(presence_penalty=-2) == steps(frequency_penalty=-2) == "aaa"


def test_no_ngram_comes_twice(opt):
    asked = {"max_tokens": 60, "ignore_eos": True, "allowed_token_ids": list(range(50, 60))}
    for size in (1, 2, 3):
        ids, _ = ask(opt, no_repeat_ngram_size=size, **{**asked, "max_tokens": 8 if size == 1 else 60})
        grams = [tuple(ids[i:i + size]) for i in range(len(ids) - size + 1)]
        assert len(set(grams)) == len(grams)


def test_logit_bias_and_allowed_token_ids_choose_the_tokens(opt):
    assert ask(opt, logit_bias={"77": 100}, max_tokens=3)[0] == [77] * 3
    greedy, _ = ask(opt, max_tokens=8, ignore_eos=True)
    assert greedy[0] not in ask(opt, logit_bias={str(greedy[0]): -100}, max_tokens=8, ignore_eos=True)[0]
    assert set(ask(opt, allowed_token_ids=[81, 82, 83], **FREE)[0]) <= {81, 82, 83}
    for bias in ({"320": 1}, {"-1": 1}, {"x": 1}):
        assert "logit_bias" in json.dumps(refused(opt, {"logit_bias": bias}))


def test_bad_words_never_come(opt):
    asked = {"max_tokens": 40, "ignore_eos": True, "allowed_token_ids": list(range(40, 90)), "temperature": 1, "seed": 3}
    text = ask(opt, **asked)[1]["text"]
    assert text[3] not in ask(opt, bad_words=[text[3]], **asked)[1]["text"]


def test_truncate_prompt_tokens_keeps_the_end(opt):
    answer = opt.complete(list(range(40, 80)), truncate_prompt_tokens=5, return_token_ids=True)
    assert answer["choices"][0]["prompt_token_ids"] == [75, 76, 77, 78, 79]
    assert answer["usage"]["prompt_tokens"] == 5
    assert refused(opt, {"truncate_prompt_tokens": -2})["param"] == "truncate_prompt_tokens"


def test_special_tokens_are_added_shown_and_hidden_as_asked(opt):
    with_bos = opt.complete("The herd", return_token_ids=True)["choices"][0]["prompt_token_ids"]
    without = opt.complete("The herd", return_token_ids=True, add_special_tokens=False)["choices"][0]["prompt_token_ids"]
    assert with_bos == [EOS] + without
    asked = {"logit_bias": {str(EOS): 100}, "ignore_eos": True, "max_tokens": 2}
    assert ask(opt, **asked)[1]["text"] == ""
    assert ask(opt, skip_special_tokens=False, spaces_between_special_tokens=False, **asked)[1]["text"] == "</s></s>"


def test_ids_come_as_ids_when_asked_for(opt):
    choice = opt.complete(IDS, return_token_ids=True, logprobs=1, return_tokens_as_token_ids=True)["choices"][0]
    assert choice["prompt_token_ids"] == IDS
    assert choice["logprobs"]["tokens"] == [f"token_id:{token}" for token in choice["token_ids"]]
    plain = opt.complete(IDS)["choices"][0]
    assert plain["token_ids"] is None and plain["prompt_token_ids"] is None


def test_labels_change_nothing_but_the_id(opt):
    plain = opt.complete(IDS)
    named = opt.complete(IDS, user="u", request_id="r-1", cache_salt="s", priority=3, length_penalty=2.0,
                         early_stopping=True, suffix="", response_format={"type": "text"}, use_beam_search=False,
                         an_unknown_key={"a": [1]})
    assert named["choices"] == plain["choices"] and named["id"] == "cmpl-r-1"


@pytest.mark.parametrize("body, key", [
    ({"use_beam_search": True}, "use_beam_search"), ({"suffix": "end"}, "suffix"), ({"prompt_embeds": "AA=="}, "prompt_embeds"),
    ({"response_format": {"type": "json_schema"}}, "response_format"), ({"guided_json": {"a": 1}}, "guided_json"),
    ({"structured_outputs": {"regex": "a"}}, "structured_outputs"), ({"logits_processors": ["a"]}, "logits_processors"),
    ({"kv_transfer_params": {"a": 1}}, "kv_transfer_params")])
def test_what_cannot_be_honoured_yet_is_refused_by_name(opt, body, key):
    error = refused(opt, body)
    assert error["param"] == key and key in error["message"]


WRONG = {  # a value of a wrong type, or out of range, for every parameter
    "model": 3, "prompt": 1.5, "suffix": 3, "max_tokens": "many", "min_tokens": -1, "temperature": -0.5, "top_p": 0, "top_k": -2,
    "min_p": 1.5, "n": 0, "best_of": "a", "stream": "maybe", "logprobs": 21, "prompt_logprobs": -2, "echo": "maybe", "stop": 7,
    "stop_token_ids": ["a"], "include_stop_str_in_output": 7, "ignore_eos": [], "presence_penalty": 2.1,
    "frequency_penalty": -2.1, "repetition_penalty": 0, "no_repeat_ngram_size": -1, "logit_bias": [1], "bad_words": [1],
    "allowed_token_ids": [], "seed": 0.5, "user": 5, "use_beam_search": True, "length_penalty": "long", "early_stopping": {},
    "truncate_prompt_tokens": 10 ** 9, "add_special_tokens": 3, "skip_special_tokens": "maybe",
    "spaces_between_special_tokens": 3, "return_tokens_as_token_ids": {}, "return_token_ids": {}, "response_format": "text",
    "priority": 10 ** 12, "cache_salt": "", "request_id": 7, "stream_options": {"include_usage": True}}


@pytest.mark.parametrize("key", WRONG)
def test_a_wrong_value_is_a_400_that_names_its_key(opt, key):
    error = refused(opt, {key: WRONG[key]})
    assert error["code"] == 400 and key in json.dumps(error), error


@pytest.mark.parametrize("key", [key for key in WRONG if key != "prompt"])
def test_null_means_absent(opt, key):
    body = {"prompt": IDS, "temperature": 0, "max_tokens": 5}
    expected = opt.request("POST", "/v1/completions", {name: value for name, value in body.items() if name != key})
    answer = opt.request("POST", "/v1/completions", {**body, key: None})
    assert answer.status == 200
    if key != "temperature":  # at 1 without a seed each answer is another
        assert answer.json["choices"] == expected.json["choices"]


def raw_stream(server, body):
    """The chunks of the transfer encoding of a streamed answer, and the head."""
    data = json.dumps({"prompt": IDS, "temperature": 0, "stream": True, **body}).encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                           b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    head, _, rest = answer.partition(b"\r\n\r\n")
    chunks = []
    while True:
        size, _, rest = rest.partition(b"\r\n")
        if int(size, 16) == 0:
            return head, chunks
        chunks.append(rest[:int(size, 16)])
        rest = rest[int(size, 16) + 2:]


def test_a_stream_is_one_event_per_write_and_done_in_a_write_of_its_own(opt):
    head, chunks = raw_stream(opt, {"max_tokens": 6, "ignore_eos": True})
    assert b"Content-Type: text/event-stream" in head
    for chunk in chunks:
        assert chunk.startswith(b"data: ") and chunk.endswith(b"\n\n") and chunk.count(b"\n") == 2 and b"\r" not in chunk
    assert chunks[-1] == b"data: [DONE]\n\n"
    events = events_of(b"".join(chunks))
    assert all(len(event["choices"]) == 1 and "usage" not in event for event in events)
    assert [event["choices"][0]["finish_reason"] for event in events] == [None] * (len(events) - 1) + ["length"]
    assert events[0]["choices"][0]["text"] or len(events) == 6  # no chunk before the first token


def test_usage_in_a_stream_is_what_its_options_ask_for(opt):
    def usage(**options):
        _, chunks = raw_stream(opt, {"max_tokens": 4, "ignore_eos": True, "stream_options": options})
        return [(len(event["choices"]), event.get("usage") and event["usage"]["completion_tokens"])
                for event in events_of(b"".join(chunks))]

    assert usage(include_usage=True)[-1] == (0, 4) and {u for _, u in usage(include_usage=True)[:-1]} == {None}
    counts = usage(include_usage=True, continuous_usage_stats=True)
    assert [count for _, count in counts[:-1]] == sorted(count for _, count in counts[:-1]) and counts[-1] == (0, 4)
    assert all(choices == 1 for choices, _ in usage(include_usage=False))


@pytest.mark.parametrize("method, path, status, fields", [
    ("GET", "/v1/models", 200, {"object", "data"}), ("GET", "/health", 200, None), ("GET", "/ping", 200, None),
    ("POST", "/ping", 200, None), ("GET", "/version", 200, {"version"}), ("GET", "/load", 200, {"server_load"}),
    ("GET", "/tokenizer_info", 200, {"tokenizer_class"}), ("GET", "/metrics", 200, None), ("GET", "/", 200, None),
    ("GET", "/plan", 200, None), ("GET", "/v1/completions", 405, {"error"}), ("DELETE", "/v1/models", 405, {"error"}),
    ("GET", "/nowhere", 404, {"error"}), ("POST", "/v1/embeddings", 404, {"error"})])
def test_every_route_answers(opt, method, path, status, fields):
    answer = opt.request(method, path)
    assert answer.status == status
    if fields:
        assert fields <= set(answer.json)
    assert answer.headers["x-request-id"]
    if status == 405:
        assert answer.headers["allow"]


def test_tokens_go_there_and_back(opt):
    there = opt.request("POST", "/tokenize", {"prompt": "The herd 🐈", "return_token_strs": True}).json
    assert set(there) == {"count", "max_model_len", "tokens", "token_strs"} and there["count"] == len(there["tokens"])
    back = opt.request("POST", "/detokenize", {"tokens": there["tokens"][1:]}).json
    assert back == {"prompt": "The herd 🐈"}
