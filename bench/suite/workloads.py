"""What is measured: models, the engines that can run each of them at its best settings, the cases, and the bars."""

import dataclasses
import subprocess

import environments
from places import CRIA, MODELS, RIVALS, SMOLLM2, plain_environment

OPT_VOCAB = 50272
SUITE = RIVALS.parent / "suite"


@dataclasses.dataclass(frozen=True, eq=False)
class Engine:
    """One way to run a model: `rival` is the name people know, `label` tells its settings apart."""

    rival: str
    environment: str
    worker: str
    open: dict
    label: str = ""
    cases: tuple = ()  # only these; empty: all of the workload

    @property
    def name(self):
        return f"{self.rival} {self.label}".strip()


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """`least`: what Cria must reach against the best rival, as a ratio, for 1 and 2 threads."""

    phase: str
    batch: int
    prompt: int
    tokens: int
    least: tuple = (None, None)
    repeat: int = 1  # runs to a sample, whose median it is

    @property
    def name(self):
        return f"prefill {self.prompt}" if self.phase == "prefill" else f"decode, batch {self.batch}"


@dataclasses.dataclass(frozen=True, eq=False)
class Workload:
    model: str  # the group that --only picks
    type: str
    cria: tuple  # model path, then options of cria bench
    engines: tuple
    cases: tuple
    make: tuple = ()  # names for make()

    @property
    def name(self):
        return f"{self.model} {self.type}"


def decode(batch, tokens, least, repeat=1):
    return Case("decode", batch, 32, tokens, least, repeat)


def prefill(least, repeat=1):
    return Case("prefill", 1, 512, 0, least, repeat)


def llama(path):
    path = str(path)
    return (Engine("llama.cpp", "llama.cpp", "llama_cpp", {"model": path}),
            Engine("ik_llama.cpp", "ik_llama.cpp", "llama_cpp", {"model": path, "flash": False}))


def opt(model, type_name, one, eight, prompt, tokens, repeat):
    folder = MODELS / model
    cases = (decode(1, tokens, one, repeat), decode(8, tokens, eight, repeat), prefill(prompt, repeat))
    torch_type = {"f32": "float32", "bf16": "bfloat16"}.get(type_name)
    engines, make = [], [model]
    if type_name in ("int8", "f32"):
        engines.append(Engine("CTranslate2", "ctranslate2", "ctranslate2",
                              {"model": f"{folder}-ct2-{type_name}", "compute_type": {"f32": "float32"}.get(type_name, "int8")}))
        make.append(f"{model}-ct2-{type_name}")
    if type_name == "int8":
        engines.append(Engine("OpenVINO", "openvino", "openvino", {"model": f"{folder}-openvino-int8", "vocab": OPT_VOCAB}))
        make.append(f"{model}-openvino-int8")
    if torch_type:
        engines.append(Engine("transformers", "transformers", "transformers",
                              {"model": str(folder), "dtype": torch_type}, "eager"))
    if type_name == "bf16":
        engines.append(Engine("transformers", "transformers", "transformers",
                              {"model": str(folder), "dtype": torch_type, "compiled": True}, "compiled",
                              (cases[0].name, cases[1].name)))
    return Workload(model, type_name, (str(folder), "--dtype", type_name), tuple(engines), cases, tuple(make))


def llama_shape(type_name, one, prompt):
    path = MODELS / f"llama-1.17b-{type_name}.gguf"
    return Workload("llama-1.17b", type_name, (str(path),), llama(path), (decode(1, 16, one), prefill(prompt)),
                    (f"llama-1.17b-{type_name}.gguf",))


WORKLOADS = (
    Workload("smollm2", "q4_1", (str(SMOLLM2),), llama(SMOLLM2),
             (decode(1, 64, (2, 1.7), 3), decode(16, 32, (6, 6)), prefill((2.5, 2.5), 3))),
    opt("opt-125m", "int8", (3, 3), (3, 2.5), (1.6, 1.6), 32, 3),
    opt("opt-125m", "bf16", (2.5, 2.5), (4, 4), (1.5, 1.5), 32, 3),
    opt("opt-125m", "f32", (1.5, 1.5), (None, None), (1.1, 1.1), 32, 3),
    llama_shape("q8_0", (1.3, 1.1), (2.5, 2.5)),
    llama_shape("q4_0", (1.5, 1.2), (2, 2)),
    llama_shape("q4_1", (1.5, 1.3), (2, 2)),
    llama_shape("bf16", (1.1, 1), (1.2, 1.2)),
    opt("opt-1.3b", "int8", (1.8, 1.8), (2.2, 2), (1.3, 1.3), 8, 1),
    opt("opt-1.3b", "bf16", (1.7, 1.5), (2.5, 2.5), (1.1, 1.1), 8, 1),
    opt("opt-1.3b", "f32", (1.25, 1), (None, None), (1.05, 1.05), 8, 1),
)


def make(name, say):
    """Makes one model (or a rival's conversion of it) in the cache folder, if it is not there."""
    out = MODELS / name
    if out.exists():
        return
    MODELS.mkdir(parents=True, exist_ok=True)
    say(f"making {name}")
    base, environment = name, "transformers"
    if "-ct2-" in name:
        base, _, kind = name.partition("-ct2-")
        environment = "ctranslate2"
        command = [str(environments.python(environment).with_name("ct2-transformers-converter")), "--model",
                   str(MODELS / base), "--output_dir", str(out), "--quantization", {"f32": "float32"}.get(kind, kind)]
    elif "-openvino-" in name:
        base, environment = name.partition("-openvino-")[0], "openvino"
        command = [str(environments.python(environment).with_name("optimum-cli")), "export", "openvino", "--model",
                   str(MODELS / base), "--task", "text-generation-with-past", "--weight-format", "int8", str(out)]
    elif name.endswith(".gguf"):
        command = [str(environments.python(environment)), str(SUITE / "make_models.py"),
                   name[: -len(".gguf")].rpartition("-")[2], str(out), str(SMOLLM2)]
    else:
        command = [str(environments.python(environment)), str(SUITE / "make_models.py"), name, str(out), str(SMOLLM2)]
    log = MODELS / f"{name}.log"
    with open(log, "w", encoding="utf-8") as file:
        result = subprocess.run(command, stdout=file, stderr=file, check=False, env=plain_environment())
    if result.returncode != 0:
        raise RuntimeError(f"making {name} failed, see {log}")


def cria_command(workload, case, threads, repeat=1, isa="auto"):
    """One sample of Cria: prefill and decode are timed apart, so that one of them can be kept short."""
    prompt, tokens = (case.prompt, 1) if case.phase == "prefill" else (case.prompt, case.tokens)
    return [str(CRIA), "bench", *workload.cria, "--prompt-tokens", str(prompt), "--new-tokens", str(tokens), "--batch",
            str(case.batch), "--threads", str(threads), "--repeat", str(repeat), "--isa", isa, "--json", "--quiet"]
