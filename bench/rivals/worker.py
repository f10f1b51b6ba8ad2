"""What every rival's program does: read requests as JSON lines, open a model once, time one case after the other.

Requests on standard input, one answer each on standard output:
  {"open": {"model": PATH, "threads": N, ...}}                          -> {"ok": true, "version": ..., "settings": ...}
  {"phase": "prefill", "batch": 1, "prompt": 512, "tokens": 0}          -> {"seconds": S, "count": tokens done}
  {"phase": "decode", "batch": 8, "prompt": 32, "tokens": 64}           -> the same; only the decoding steps are timed
A failure is {"error": TEXT}. What libraries print goes to standard error.
"""

import json
import os
import sys
import traceback


def prompt_ids(batch, length, vocab):
    """The same tokens for every engine: any text will do, since no engine's speed depends on it."""
    return [[(position * 7919 + sequence * 104729 + 13) % vocab for position in range(length)] for sequence in range(batch)]


def serve(open_engine):
    """open_engine(**open) returns an object with version, settings, prefill(batch, prompt) and
    decode(batch, prompt, tokens), both returning (seconds, tokens)."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    engine = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "open" in request:
                engine = open_engine(**request["open"])
                answer = {"ok": True, "version": engine.version, "settings": engine.settings}
            elif request["phase"] == "prefill":
                seconds, count = engine.prefill(request["batch"], request["prompt"])
                answer = {"seconds": seconds, "count": count}
            else:
                seconds, count = engine.decode(request["batch"], request["prompt"], request["tokens"])
                answer = {"seconds": seconds, "count": count}
        except Exception as error:  # whatever a rival throws is its answer, not the end of the run
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
