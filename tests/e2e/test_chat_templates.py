"""Chat templates: what a checkpoint's own template says in Jinja, the server says without it.

data/templates holds templates as published checkpoints carry them; transformers renders them with the same Jinja
environment as here.
"""
import json
import shutil

import jinja2.sandbox
import pytest
from server import FIXTURES, Server
from test_cli import cria

TEMPLATES = FIXTURES.parent / "e2e" / "data" / "templates"
LLAMA = FIXTURES / "models" / "llama-bf16-text"
BOS, EOS = "<|im_start|>", "<|im_end|>"  # of the fixture

SYSTEM = {"role": "system", "content": " Be brief.\n"}
TURNS = [{"role": "user", "content": " Hello é\n\n"}, {"role": "assistant", "content": "\tHi! "},
         {"role": "user", "content": " \u00a0And \u00a0now?\u3000\x1f "}]
CONVERSATIONS = {"one": TURNS[:1], "three": TURNS, "system": [SYSTEM, *TURNS], "system one": [SYSTEM, *TURNS[:1]],
                 "answered": TURNS[:2]}
UNSYSTEMATIC = {"mistral-v0.1.jinja"}  # raise an exception at a system message; the server puts it before the question
NEED_SYSTEM = {"alpaca.jinja"}  # without one, the server takes the sentence that the models were trained with


def rendered(template, messages, generation):
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)

    def fail(message):
        raise ValueError(message)

    environment.globals["raise_exception"] = fail
    return environment.from_string(template).render(messages=messages, add_generation_prompt=generation, bos_token=BOS,
                                                    eos_token=EOS)


def folder_with(template, folder, as_file=False):
    shutil.copytree(LLAMA, folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["chat_template"] = template
    if as_file:
        config["chat_template"] = None
        (folder / "chat_template.jinja").write_text(template)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def text_of(server, messages, generation):
    """The prompt that the chat route makes of the messages."""
    body = {"messages": messages, "add_generation_prompt": generation}
    answer = server.request("POST", "/tokenize", body)
    assert answer.status == 200, answer.body
    back = server.request("POST", "/detokenize", {"tokens": answer.json["tokens"]})
    return back.json["prompt"]


@pytest.mark.parametrize("name", sorted(path.name for path in TEMPLATES.iterdir()))
def test_a_template_is_recognised_and_says_what_jinja_says(name, tmp_path):
    template = (TEMPLATES / name).read_text()
    with Server(folder_with(template, tmp_path / "m", as_file=name == "qwen2.jinja")) as server:
        for messages in CONVERSATIONS.values():
            system = messages[0]["role"] == "system"
            if (system and name in UNSYSTEMATIC) or (not system and name in NEED_SYSTEM):
                continue
            for generation in (True, False):
                assert text_of(server, messages, generation) == rendered(template, messages, generation)
        answer = server.request("POST", "/v1/chat/completions", {"messages": CONVERSATIONS["system one"],
                                                                 "max_tokens": 2, "temperature": 0})
        assert answer.status == 200 and answer.json["choices"][0]["message"]["role"] == "assistant"
        expected = server.request("POST", "/tokenize", {"messages": CONVERSATIONS["system one"]}).json["count"]
        assert answer.json["usage"]["prompt_tokens"] == expected


def test_roles_out_of_turn_are_refused_where_the_template_refuses_them(tmp_path):
    with Server(folder_with((TEMPLATES / "llama-2.jinja").read_text(), tmp_path / "m")) as server:
        answer = server.request("POST", "/v1/chat/completions", {"messages": [TURNS[0], TURNS[0]]})
        assert answer.status == 400 and "alternate" in answer.json["error"]["message"]


def test_a_template_that_is_not_recognised_is_an_error_on_the_chat_route_only(tmp_path):
    folder = folder_with("{{ messages | tojson }}", tmp_path / "m")
    with Server(folder) as server:
        answer = server.request("POST", "/v1/chat/completions", {"messages": TURNS[:1]})
        assert answer.status == 400 and "--chat-template" in answer.json["error"]["message"]
        assert server.complete("Hello")["choices"]
    with Server(folder, "--chat-template", "zephyr") as server:
        assert text_of(server, TURNS[:1], True) == f"<|user|>\n{TURNS[0]['content']}{EOS}\n<|assistant|>\n"


@pytest.mark.parametrize("name, expected", [
    ("plain", " Hello é\n\n\n"),
    ("alpaca", "Below is an instruction that describes a task. Write a response that appropriately completes the "
               "request.\n\n### Instruction:\n Hello é\n\n\n\n### Response:\n")])
def test_a_model_without_a_template_takes_one_by_name(name, expected):
    with Server(FIXTURES / "models" / "opt-f16-text", "--chat-template", name) as server:
        assert text_of(server, TURNS[:1], True) == expected
        assert server.request("POST", "/v1/chat/completions", {"messages": TURNS[:1], "max_tokens": 1}).status == 200


def test_an_unknown_name_ends_the_start_and_lists_the_known():
    message = cria("serve", LLAMA, "--port", 0, "--chat-template", "cuneiform", status=2)
    assert "cuneiform" in message and "llama-3" in message
