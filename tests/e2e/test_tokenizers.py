"""Every vocabulary against the reference libraries on 10,000 hostile strings, and texts that invite a quadratic loop."""
import importlib.util
import json
import random
import subprocess
import sys
import time

import pytest
from conftest import DEFAULT_MODEL
from server import CRIA, ROOT

DATA = ROOT / "tests" / "tokenizer" / "data"
FILTER = CRIA.parent / "tests" / "tokenizer_test_reference"
VOCABULARIES = ["opt", "smollm", "llama2", "llama3", "scored", "unigram"]


@pytest.fixture(scope="session")
def tool():
    """tools/make_tokenizer_fixtures.py, which asks the references the same questions."""
    for library in ("tokenizers", "sentencepiece"):
        pytest.importorskip(library)
    spec = importlib.util.spec_from_file_location("make_tokenizer_fixtures", ROOT / "tools" / "make_tokenizer_fixtures.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(not FILTER.exists(), reason=f"{FILTER} is not built: ninja -C build")
@pytest.mark.parametrize("name", VOCABULARIES)
def test_ten_thousand_hostile_strings_give_the_ids_and_texts_of_the_reference(tool, name, capsys):
    """Encoded with and without special tokens, and decoded again: tokenizers, sentencepiece."""
    wrong = tool.check(DATA / name, 10000, FILTER)
    assert wrong == 0, capsys.readouterr().out


@pytest.mark.skipif(not FILTER.exists(), reason=f"{FILTER} is not built: ninja -C build")
@pytest.mark.skipif(not DEFAULT_MODEL.exists(), reason=f"{DEFAULT_MODEL} is not there: ./run model")
def test_ten_thousand_hostile_strings_for_the_vocabulary_in_a_gguf_file(tool, capsys):
    pytest.importorskip("gguf")
    wrong = tool.check(DEFAULT_MODEL, 10000, FILTER)
    assert wrong == 0, capsys.readouterr().out


@pytest.mark.skipif(not FILTER.exists(), reason=f"{FILTER} is not built: ninja -C build")
def test_long_runs_of_unknown_characters_give_the_ids_of_the_sentencepiece_library(tool, capsys):
    """The library needs quadratic time for them, so that Cria cuts such texts; nobody may see where."""
    judge, chance = tool.reference(DATA / "unigram"), random.Random(8)
    words = [word for line in tool.CORPUS for word in line.split() if not judge.tied(word)]
    made = []
    for _ in range(30):
        text = chance.choice(["", " ", "the "])
        while len(text) < 12000:
            unknown = "\u4f60\u597d\U0001f389\u0301\n\u0600\u212b"
            text += "".join(chance.choices(unknown, k=chance.randrange(1, 6000)))
            text += chance.choice(["", " ", "  "]) + chance.choice(words)
            text += chance.choice(unknown) * chance.randrange(6000)
        made.append({"text": text, "plain": judge.first.EncodeAsIds(text)})
    assert tool.compare(DATA / "unigram", made, FILTER) == 0, capsys.readouterr().out


def wait_for(act, seconds):
    start = time.monotonic()
    result = act()
    assert time.monotonic() - start < seconds
    return result


@pytest.mark.skipif(not FILTER.exists(), reason=f"{FILTER} is not built: ninja -C build")
@pytest.mark.parametrize("name", VOCABULARIES)
def test_a_megabyte_of_one_repeated_text_does_not_hang(name):
    """Each takes under a second, two encodings and two decodings; with a quadratic loop it takes minutes: the limit tells those
    two apart, on a busy machine too."""
    texts = [text * ((1 << 20) // len(text.encode())) for text in ("a", "\n", "字")]
    asked = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    done = wait_for(lambda: subprocess.run([FILTER, DATA / name], input=asked, capture_output=True, check=True), 60)
    answers = done.stdout.split(b"\n")[:-1]
    assert len(answers) == len(texts) and not any(answer.startswith(b'{"error"') for answer in answers)


@pytest.mark.parametrize("model", ["opt", "smol"])
def test_a_megabyte_over_http_comes_back_whole(request, model):
    server, text = request.getfixturevalue(model), "é" * (1 << 19)
    answer = wait_for(lambda: server.request("POST", "/tokenize", {"prompt": text, "add_special_tokens": False}), 30)
    assert answer.status == 200, answer.body[:200]
    assert server.request("POST", "/detokenize", {"tokens": answer.json["tokens"]}).json["prompt"] == text
