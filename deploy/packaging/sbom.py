#!/usr/bin/env python3
"""What a program is made of: a CycloneDX 1.5 document from cargo's own resolution, so that it
lists what is compiled in and nothing else. The same sources give the same bytes.

    sbom.py PACKAGE PROGRAM    writes to standard output; run in the workspace
"""

import json
import pathlib
import subprocess
import sys
import tomllib
import uuid

PLATFORM = "x86_64-unknown-linux-gnu"


def main():
    package, program = sys.argv[1:3]
    command = ["cargo", "metadata", "--locked", "--offline", "--format-version=1", f"--filter-platform={PLATFORM}"]
    metadata = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    packages = {p["id"]: p for p in metadata["packages"]}
    nodes = {n["id"]: n for n in metadata["resolve"]["nodes"]}
    root = next(p["id"] for p in metadata["packages"] if p["name"] == package and p["source"] is None)
    lock = tomllib.loads(pathlib.Path(metadata["workspace_root"], "Cargo.lock").read_text())
    checksums = {(p["name"], p["version"]): p.get("checksum") for p in lock["package"]}

    def needs(id_):
        """What is linked in: neither tests' nor build scripts' dependencies."""
        return [d["pkg"] for d in nodes[id_]["deps"] if any(k["kind"] is None for k in d["dep_kinds"])]

    found, waiting = {root}, [root]
    while waiting:
        new = [id_ for id_ in needs(waiting.pop()) if id_ not in found]
        found.update(new)
        waiting.extend(new)

    def ref(id_):
        return f"pkg:cargo/{packages[id_]['name']}@{packages[id_]['version']}"

    def component(id_):
        p = packages[id_]
        made = {"type": "library", "bom-ref": ref(id_), "name": p["name"], "version": p["version"], "purl": ref(id_)}
        if p["license"]:
            # A slash is an old way to write OR.
            made["licenses"] = [{"expression": p["license"].replace("/", " OR ")}]
        if checksum := checksums.get((p["name"], p["version"])):
            made["hashes"] = [{"alg": "SHA-256", "content": checksum}]
        return made

    libraries = sorted((component(id_) for id_ in found - {root}), key=lambda c: (c["name"], c["version"]))
    graph = [{"ref": ref(id_), "dependsOn": sorted({ref(d) for d in needs(id_)})} for id_ in sorted(found, key=ref)]
    subject = component(root) | {"type": "application", "name": program}
    body = {"metadata": {"component": subject}, "components": libraries, "dependencies": graph}
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(body, sort_keys=True))
    document = {"bomFormat": "CycloneDX", "specVersion": "1.5", "serialNumber": f"urn:uuid:{serial}", "version": 1}
    json.dump(document | body, sys.stdout, indent=1)
    print()


main()
