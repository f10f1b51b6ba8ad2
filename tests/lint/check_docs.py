"""Tests that the documents name exist: a table of tests is worth nothing once a name in it leads nowhere."""
import pathlib
import re
import sys

DOCUMENTS = ["docs/bug-classes.md"]
FILE = re.compile(r"(?:\w+/)*test_\w+\.(?:c|py)")
NAME = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+){3,}")


def missing(root):
    """Yields one line of text for each name without a test."""
    tests = root / "tests"
    files = {path.relative_to(tests).as_posix() for path in tests.rglob("test_*")}
    files |= {pathlib.PurePath(path).name for path in files if path.startswith("e2e/")}
    names = set()
    for path in files:
        if (tests / path).is_file() and path.endswith((".c", ".py")):
            names.update(re.findall(r"^(?:static void|def) (\w+)\(", (tests / path).read_text(encoding="utf-8"), re.M))
    for document in DOCUMENTS:
        for number, line in enumerate((root / document).read_text(encoding="utf-8").split("\n"), 1):
            for word in re.findall(r"`([^`]+)`", line):
                known = files if FILE.fullmatch(word) else names if NAME.fullmatch(word) else {word}
                if word not in known:
                    yield f"{document}:{number}: there is no test {word}"


def main():
    problems = list(missing(pathlib.Path(__file__).resolve().parents[2]))
    print("\n".join(problems) if problems else "no violations")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
