#!/usr/bin/env python3
"""Checks JSON files against the schemas in docs/: cluster files, and the plans and graphs of the fuzz corpus. Usage:
check_schemas.py [SCHEMA FILE...]; without arguments, everything in the tree. Knows the keywords that our schemas use
and fails on any other, so that nothing in a schema goes unchecked."""
import json
import pathlib
import re
import sys

TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
NOTES = {"$schema", "title", "description", "$defs", "$id"}


def is_type(value, name):
    if name in ("number", "integer"):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and (name == "number" or value == int(value))
    return isinstance(value, TYPES[name])


def check_keyword(root, schema, key, value, place):
    """Yields what one keyword finds wrong."""
    wanted = schema[key]
    sized = isinstance(value, list)
    number = is_type(value, "number")
    if key == "$ref":
        target = root
        for part in wanted.removeprefix("#/").split("/"):
            target = target[part]
        yield from check(root, target, value, place)
    elif key == "type":
        names = wanted if isinstance(wanted, list) else [wanted]
        if not any(is_type(value, name) for name in names):
            yield f"{place}: must be {wanted}"
    elif key in ("const", "enum"):
        if value not in (wanted if key == "enum" else [wanted]):
            yield f"{place}: {value!r} is not {wanted!r}"
    elif key == "required":
        yield from (f"{place}: {name} is missing" for name in wanted if isinstance(value, dict) and name not in value)
    elif key == "properties":
        for name, inner in wanted.items():
            if isinstance(value, dict) and name in value:
                yield from check(root, inner, value[name], f"{place}.{name}")
    elif key == "additionalProperties":
        known = schema.get("properties", {})
        for name in value if isinstance(value, dict) else ():
            if name not in known:
                yield from [f"{place}: {name} is not known"] if wanted is False else check(root, wanted, value[name], f"{place}.{name}")
    elif key == "items":
        for index, item in enumerate(value if sized else ()):
            yield from check(root, wanted, item, f"{place}[{index}]")
    elif key in ("minItems", "maxItems"):
        if sized and (len(value) - wanted) * (1 if key == "minItems" else -1) < 0:
            yield f"{place}: {len(value)} items"
    elif key in ("minimum", "maximum", "exclusiveMinimum"):
        bad = number and (value < wanted if key == "minimum" else value > wanted if key == "maximum" else value <= wanted)
        if bad:
            yield f"{place}: {value} is out of range ({key} {wanted})"
    elif key == "pattern":
        if isinstance(value, str) and not re.search(wanted, value):
            yield f"{place}: {value!r} does not match {wanted}"
    elif key not in NOTES:
        raise SystemExit(f"check_schemas.py does not know the keyword {key}")


def check(root, schema, value, place="$"):
    """Yields one line for each thing wrong with `value`."""
    for key in schema:
        yield from check_keyword(root, schema, key, value, place)


def load(path):
    return json.loads(path.read_text(encoding="utf-8"))


def main():
    tree = pathlib.Path(__file__).resolve().parents[2]
    if len(sys.argv) > 2:
        pairs = [(pathlib.Path(sys.argv[1]), pathlib.Path(file)) for file in sys.argv[2:]]
    else:
        pairs = [(tree / "docs/plan.schema.json", tree / "tests/fuzz/corpus/fuzz_plan/two_ranks")]
        pairs += [(tree / "docs/graph.schema.json", file) for file in sorted((tree / "tests/fuzz/corpus/fuzz_graph").iterdir())]
        pairs += [(tree / "docs/cluster.schema.json", file) for file in sorted((tree / "configs/clusters").glob("*.json"))]
    problems = [f"{file}: {line}" for schema, file in pairs for line in check(load(schema), load(schema), load(file))]
    print("\n".join(problems) if problems else f"{len(pairs)} files follow their schemas")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
