"""Checks the licences and sources of every crate that Elton is built from: `licences.py < cargo-metadata.json`.

What cargo-deny would say, without building it first.
"""

import json
import re
import sys

ALLOWED = {
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0",
    "CDLA-Permissive-2.0", "ISC", "MIT", "MIT-0", "MPL-2.0", "Unicode-3.0", "Unlicense", "Zlib",
}  # fmt: skip
SOURCE = "registry+https://github.com/rust-lang/crates.io-index"


def allowed(expression: str) -> bool:
    """Whether an SPDX expression can be met: AND binds closer than OR, `/` is an old way to write OR."""
    tokens = re.findall(r"\(|\)|[^()\s]+", expression.replace("/", " OR "))
    words, position = [], 0

    def alternatives():
        nonlocal position
        met = conjunction()
        while position < len(tokens) and tokens[position] == "OR":
            position += 1
            met |= conjunction()
        return met

    def conjunction():
        nonlocal position
        met = licence()
        while position < len(tokens) and tokens[position] == "AND":
            position += 1
            met &= licence()
        return met

    def licence():
        nonlocal position
        token = tokens[position]
        position += 1
        if token == "(":
            met = alternatives()
            position += 1
            return met
        if position < len(tokens) and tokens[position] == "WITH":
            token = f"{token} WITH {tokens[position + 1]}"
            position += 2
        words.append(token)
        return token in ALLOWED

    return alternatives()


def main() -> int:
    findings = []
    packages = json.load(sys.stdin)["packages"]
    for package in packages:
        name = f"{package['name']} {package['version']}"
        if package["source"] is not None and package["source"] != SOURCE:
            findings.append(f"{name} comes from {package['source']}")
        if not package["license"]:
            findings.append(f"{name} names no licence")
        elif not allowed(package["license"]):
            findings.append(f"{name} is under {package['license']}")
    for finding in findings:
        print(finding)
    print(f"{len(packages)} packages looked at")
    return bool(findings)


sys.exit(main())
