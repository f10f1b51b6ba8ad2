"""vLLM's recorded requests, replayed: same status, same fields and types, same order of stream events.

Where Cria answers otherwise on purpose, docs/vllm-differences.md has a row with the reason; a row that no longer differs
fails too, so that the list stays true.
"""
import json
import pathlib
import re

import pytest
from server import ROOT, Answer, events_of

DATA = pathlib.Path(__file__).parent / "data"
RECORDED = {(kind, one["name"]): one for kind in ("completions", "chat")
            for one in json.loads((DATA / f"{kind}.json").read_text())}
DIFFERENCES = {tuple(found) for found in re.findall(
    r"^\| (completions|chat) \| ([^|]+?) \|", (ROOT / "docs" / "vllm-differences.md").read_text(), re.M)}

NOISE = {"stop_reason"}                 # null, a string or an id, as the sampled text happens to run
MAPS = {"top_logprobs", "prompt_logprobs", "logit_bias"}  # objects whose keys are tokens


def shape(value, key=""):
    """What is compared: names and types, not values. A list is the set of its elements' shapes."""
    if key in NOISE:
        return "any"
    if isinstance(value, dict):
        if key in MAPS:
            return {"*": sorted({json.dumps(shape(v)) for v in value.values()})}
        return {name: shape(v, name) for name, v in sorted(value.items())}
    if isinstance(value, list):
        return sorted({json.dumps(shape(v, key)) for v in value})
    return "null" if value is None else "boolean" if isinstance(value, bool) else (
        "number" if isinstance(value, (int, float)) else "string")


def run_of(shapes):
    """The order of events: repetitions of one shape count once (how many depends on the text)."""
    return [s for i, s in enumerate(shapes) if i == 0 or s != shapes[i - 1]]


def stream_shape(body):
    events = events_of(body)
    by_choice = {}
    for event in events:  # choices may interleave in any order; each must follow its own
        key = event["choices"][0]["index"] if event.get("choices") else "usage" if "usage" in event else "error"
        by_choice.setdefault(key, []).append(shape(event))
    return {str(key): run_of(shapes) for key, shapes in by_choice.items()}


def body_shape(answer):
    kind = (answer.headers.get("content-type") or "").split(";")[0]
    if kind == "text/event-stream":
        return stream_shape(answer.body)
    if kind == "application/json":
        return shape(answer.json)
    return kind or "nothing"


def differing(theirs, ours, path="$"):
    """Where two shapes differ, in words."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        found = [f"{path}: {name} is missing" for name in theirs.keys() - ours.keys()]
        found += [f"{path}: {name} is not in vLLM's" for name in ours.keys() - theirs.keys()]
        for name in sorted(theirs.keys() & ours.keys()):
            found += differing(theirs[name], ours[name], f"{path}.{name}")
        return found
    return [] if theirs == ours else [f"{path}: {theirs} in vLLM's, {ours} here"]


def facts(answer):
    """Values that must agree as well: how many choices, and what an error says it is about."""
    if answer.headers.get("content-type") != "application/json":
        return {}
    body = answer.json
    if "error" in body:
        param = body["error"]["param"]  # a validation error names the way to the value: the key is what matters
        return {"code": body["error"]["code"], "param": param and param.removeprefix("body.").split(".")[0]}
    if "choices" in body:
        return {"choices": [choice["index"] for choice in body["choices"]], "object": body["object"]}
    return {}


def replay(server, recorded):
    request = recorded["request"]
    headers, body = {}, request["body"]
    if isinstance(body, str):
        if recorded["name"] == "invalid utf8":  # the recording shows the bytes as U+FFFD
            body = body.encode().replace(b"\xef\xbf\xbd", b"\xff")
        headers["Content-Type"] = "text/plain" if recorded["name"] == "text/plain" else "application/json"
    return server.request(request["method"], request["path"], body, headers)


def compare(kind, name, server):
    recorded = RECORDED[kind, name]
    theirs = Answer(recorded["status"], {"content-type": recorded["content_type"]}, recorded["response"].encode())
    ours = replay(server, recorded)
    found = [] if ours.status == theirs.status else [f"status {theirs.status} in vLLM's, {ours.status} here"]
    ours_type, theirs_type = (a.headers.get("content-type") for a in (ours, theirs))
    if theirs_type == "application/json" and not theirs.body.endswith(b"}"):
        pass  # the recording is cut off: only the status is known
    elif ours_type != theirs_type:
        found.append(f"content type {theirs_type} in vLLM's, {ours_type} here")
    else:
        found += differing(body_shape(theirs), body_shape(ours))
        found += [f"{key}: {value!r} in vLLM's, {facts(ours).get(key)!r} here"
                  for key, value in facts(theirs).items() if facts(ours).get(key) != value]
    if (kind, name) in DIFFERENCES:
        assert found, "docs/vllm-differences.md lists this request, but the answer agrees: take the row out"
        assert ours.status < 500
    else:
        assert not found, "\n".join(found) + f"\n{ours.text[:600]}"


@pytest.mark.parametrize("name", [name for kind, name in RECORDED if kind == "completions"])
def test_a_completions_request_is_answered_as_vllm_answers_it(wide, name):
    compare("completions", name, wide)


@pytest.mark.parametrize("name", [name for kind, name in RECORDED if kind == "chat"])
def test_a_chat_request_is_answered_as_vllm_answers_it(smol, name):
    compare("chat", name, smol)


def test_every_listed_difference_is_a_recorded_request():
    assert DIFFERENCES <= RECORDED.keys(), DIFFERENCES - RECORDED.keys()
