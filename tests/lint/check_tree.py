#!/usr/bin/env python3
"""Checks the rules of the tree that no compiler checks: who may include whom, which file wraps which library, file length,
and calls that a library must not make. Usage: check_tree.py [ROOT]; prints one line for each violation."""

import pathlib
import re
import sys

MOST_LINES = 700

# Folder: the folders whose headers it may include besides its own. Files under ANYTHING may include all.
MAY_INCLUDE = {
    "base": (),
    "tokenizer": ("base",),
    "kernels": ("base",),
    "parallel": ("base", "kernels"),
    "models": ("base", "kernels", "parallel"),
    "server": ("base", "tokenizer", "kernels", "parallel", "models"),
}
ANYTHING = ("training", "bench", "tools", "tests")

# A library's headers (at the start of the included path), and the only files that may include them.
WRAPPED = (
    (r"(cjson/)?cJSON", r"base/json\.[ch]"),
    (r"microhttpd", r"server/http/.*"),
    (r"pcre2", r"tokenizer/.*\.[ch]"),
    (r"sentencepiece", r"tokenizer/[^/]*\.cc"),
    (r"(cuda|cublas|cub/|curand|cusparse|nvml|nvtx)", r"kernels/cuda/.*"),
    (r"nccl", r"parallel/comm.*"),
    (r"mpi\.h", r"parallel/comm.*"),
    (r"glpk", r"parallel/solve/lp\.c"),
)

# C++ is for device code and for the one shim around a C++ library.
CXX_ALLOWED = r"tokenizer/[^/]*\.cc"

# What only a program may do: end the process, print, read the environment.
FORBIDDEN_CALLS = r"(?<![\w.>])(exit|_exit|_Exit|quick_exit|abort|getenv|secure_getenv|printf|puts|putchar|vprintf|perror)\s*\("
FORBIDDEN_NAMES = r"\b(stdout|stderr)\b"
PROGRAMS = r"server/(main|commands/\w+)\.c"

C_FILES = (".c", ".h", ".cc", ".cpp", ".cxx", ".cu", ".cuh")
SOURCES = C_FILES + (".py", ".sh", ".cmake", ".txt")

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
# Comments, strings and character constants, in the order in which they begin.
NO_CODE = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)


def blank(match):
    """Keeps the line count of what is taken out."""
    return "\n" * match.group().count("\n") or " "


def check_include(path, folder, quote, header):
    """What is wrong with one include, or None."""
    target = header.split("/")[0] if "/" in header else None
    ours = target in MAY_INCLUDE or target in ANYTHING
    for pattern, wrapper in WRAPPED:
        if quote == "<" or not ours:
            if re.match(pattern, header) and not re.fullmatch(wrapper, path):
                return f"<{header}> may only be included by {wrapper}"
    if quote == "<":
        return f"<{header}> must be written with quotes" if ours else None
    if not ours:
        return f'"{header}" must be written as a path from the root of the tree'
    if folder in ANYTHING or target == folder or target in MAY_INCLUDE[folder]:
        return None
    return f'{folder}/ may not include "{header}"'


def check_c(path, folder, text):
    """Yields (line number, what is wrong) for one C, C++ or CUDA file."""
    for number, line in enumerate(text.split("\n"), 1):
        include = INCLUDE.match(line)
        if include:
            problem = check_include(path, folder, *include.groups())
            if problem:
                yield number, problem
    suffix = pathlib.PurePath(path).suffix
    if suffix in (".cc", ".cpp", ".cxx") and not re.fullmatch(CXX_ALLOWED, path):
        yield 1, f"C++ is only for {CXX_ALLOWED}"
    if folder in MAY_INCLUDE and not re.fullmatch(PROGRAMS, path):
        for number, line in enumerate(NO_CODE.sub(blank, text).split("\n"), 1):
            for found in re.finditer(f"{FORBIDDEN_CALLS}|{FORBIDDEN_NAMES}", line):
                yield number, f"a library must not use {found.group(1) or found.group(2)}"


def check_tree(root):
    """Yields one line of text for each violation below `root`."""
    root = pathlib.Path(root)
    for folder in (*MAY_INCLUDE, *ANYTHING):
        for file in sorted((root / folder).rglob("*")):
            if file.suffix not in SOURCES or not file.is_file():
                continue
            path = file.relative_to(root).as_posix()
            if path.startswith("tests/fixtures/") and file.suffix == ".txt":
                continue
            text = file.read_text(encoding="utf-8")
            lines = text.count("\n")
            if lines > MOST_LINES:
                yield f"{path}: has {lines} lines, over the limit of {MOST_LINES}"
            if file.suffix in C_FILES:
                for number, problem in check_c(path, folder, text):
                    yield f"{path}:{number}: {problem}"


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parents[2]
    problems = list(check_tree(root))
    print("\n".join(problems) if problems else "no violations")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
