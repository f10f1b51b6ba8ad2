#!/usr/bin/env python3
"""Checks that check_tree.py finds each kind of violation, and nothing in what is allowed."""

import pathlib
import tempfile
import unittest

from check_tree import check_tree


def problems(files):
    """The violations in a tree of {path: text}."""
    with tempfile.TemporaryDirectory() as root:
        for path, text in files.items():
            file = pathlib.Path(root, path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        return list(check_tree(root))


class CheckTree(unittest.TestCase):
    def assert_found(self, path, text, *parts):
        found = problems({path: text})
        self.assertEqual(len(found), 1, found)
        for part in (path, *parts):
            self.assertIn(part, found[0])

    def assert_clean(self, path, text):
        self.assertEqual(problems({path: text}), [])

    def test_a_lower_folder_may_not_include_a_higher_one(self):
        self.assert_found("base/a.c", "\n#include \"kernels/k.h\"\n", ":2:", "base/ may not include")
        self.assert_found("kernels/cpu/a.c", '#include "tokenizer/t.h"\n')
        self.assert_found("tokenizer/a.h", '#  include "models/m.h"\n')
        self.assert_found("models/a.c", '#include "server/s.h"\n')
        self.assert_found("server/a.c", '#include "tests/t.h"\n')

    def test_a_folder_may_include_itself_and_those_below(self):
        self.assert_clean("base/a.c", '#include "base/b.h"\n#include <stdio.h>\n')
        self.assert_clean("server/http/a.c", '#include "models/m.h"\n#include "base/b.h"\n#include <microhttpd.h>\n')
        self.assert_clean("tests/base/test_a.c", '#include "server/s.h"\n#include "tests/t.h"\n')

    def test_headers_are_named_from_the_root(self):
        self.assert_found("base/a.c", '#include "b.h"\n', "from the root")
        self.assert_found("base/a.c", '#include "../base/b.h"\n', "from the root")
        self.assert_found("base/a.c", "#include <base/b.h>\n", "quotes")

    def test_a_wrapped_library_is_included_by_its_wrapper_only(self):
        wrapped = {
            "cjson/cJSON.h": ("base/json.c", "base/json_scan.c"),
            "microhttpd.h": ("server/http/loop.c", "server/main.c"),
            "pcre2.h": ("tokenizer/split.c", "base/text.c"),
            "sentencepiece_processor.h": ("tokenizer/shim.cc", "tokenizer/shim.c"),
            "cuda_runtime.h": ("kernels/cuda/device.c", "kernels/kernels.c"),
            "mpi.h": ("parallel/comm/mpi.c", "parallel/execute/run.c"),
            "nccl.h": ("parallel/comm/nccl.c", "kernels/cuda/device.c"),
            "glpk.h": ("parallel/solve/lp.c", "parallel/solve/exact.c"),
        }
        for header, (wrapper, other) in wrapped.items():
            self.assert_clean(wrapper, f"#include <{header}>\n")
            self.assert_found(other, f"#include <{header}>\n", "may only be included by")

    def test_files_have_at_most_700_lines(self):
        self.assert_clean("base/a.c", "\n" * 700)
        self.assert_found("base/a.c", "\n" * 701, "701")
        self.assert_found("tools/a.py", "\n" * 701, "701")

    def test_cxx_is_only_for_the_shim(self):
        self.assert_clean("tokenizer/shim.cc", "int a;\n")
        self.assert_found("base/a.cc", "int a;\n", "C++")
        self.assert_found("tokenizer/a.cpp", "int a;\n", "C++")

    def test_libraries_do_not_exit_print_or_read_the_environment(self):
        for call in ("exit(1)", "abort ()", 'getenv("X")', 'printf("x")', 'fputs("x", stderr)'):
            self.assert_found("base/a.c", f"void f(void) {{ {call}; }}\n", "must not use")
            self.assert_clean("tests/base/test_a.c", f"void f(void) {{ {call}; }}\n")
            self.assert_clean("server/main.c", f"void f(void) {{ {call}; }}\n")

    def test_comments_strings_and_other_names_are_no_calls(self):
        self.assert_clean("base/a.c", '/* exit(1)\n abort() */ // getenv("x")\nconst char *s = "it\'s exit(\\")";\n')
        self.assert_clean("base/a.c", "int c = '\"'; void f(void) { snprintf(a, 1, b); x->abort(x); x.exit(0); on_exit_(); }\n")


if __name__ == "__main__":
    unittest.main()
