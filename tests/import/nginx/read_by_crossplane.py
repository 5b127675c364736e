"""Prints what crossplane (PyPI, 0.5.8) reads in each file beside this one.

A line for each directive: file, line, depth, words.

    python3 tests/import/nginx/read_by_crossplane.py > tests/import/nginx/crossplane.txt
"""

import json
import pathlib

import crossplane


def walk(block, name, depth):
    for directive in block:
        words = [directive["directive"], *directive["args"]]
        print(name, directive["line"], depth, json.dumps(words, ensure_ascii=False))
        walk(directive.get("block", []), name, depth + 1)


for file in sorted(pathlib.Path(__file__).parent.glob("*.conf")):
    parsed = crossplane.parse(str(file), single=True, check_ctx=False, check_args=False)
    assert parsed["status"] == "ok", parsed["errors"]
    walk(parsed["config"][0]["parsed"], file.name, 0)
