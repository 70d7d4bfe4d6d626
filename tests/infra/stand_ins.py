"""Providers that stand in for the real ones, made of their schema: enough for `terraform init`, `validate` and `test`.

Terraform starts its providers anew for every run of a test. These are started once and Terraform is told where they listen, and
they know only the resource types that are used: that makes a test of five minutes one of one.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

_TYPES: Final = re.compile(r'^\s*(?:resource|data|ephemeral|mock_resource|mock_data)\s+"(\w+)"', re.MULTILINE)
_KINDS: Final = ("resource_schemas", "data_source_schemas", "ephemeral_resource_schemas")


@contextmanager
def started(stub: Path, schema: Path, tree: Path, work: Path) -> Iterator[Mapping[str, str]]:
    """Serve the providers of ``schema`` with ``stub`` while the block runs; give the environment that leads there."""
    small = work / "schema.json.gz"
    small.write_bytes(gzip.compress(json.dumps(_needed(schema, tree)).encode()))
    mirror = work / "mirror"
    subprocess.run([sys.executable, str(stub), "install", str(mirror), str(small)], check=True, stdout=subprocess.DEVNULL)
    running: dict[str, subprocess.Popen[str]] = {}
    # A client's certificate in the environment would make them ask for one.
    environment = {name: value for name, value in os.environ.items() if name != "PLUGIN_CLIENT_CERT"}
    try:
        for source in json.loads(gzip.decompress(schema.read_bytes()))["provider_schemas"]:
            command = [sys.executable, str(stub), "serve", source.rsplit("/", 1)[-1], str(small)]
            running[source] = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        reached = json.dumps({source: _address(process) for source, process in running.items()})
        yield {"TF_CLI_CONFIG_FILE": str(mirror / "terraformrc"), "TF_REATTACH_PROVIDERS": reached}
    finally:
        for process in running.values():
            process.kill()
            process.communicate()


def _needed(schema: Path, tree: Path) -> Any:
    """Return the schema of what a tree uses."""
    document = json.loads(gzip.decompress(schema.read_bytes()))
    files = [*tree.rglob("*.tf"), *tree.rglob("*.tftest.hcl"), *tree.rglob("*.tfmock.hcl")]
    used = {name for path in files for name in _TYPES.findall(path.read_text(encoding="utf-8"))}
    for provider in document["provider_schemas"].values():
        for kind in _KINDS:
            provider[kind] = {name: value for name, value in provider.get(kind, {}).items() if name in used}
    return document


def _address(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Read where a provider listens from its first line, and put it as Terraform wants it."""
    assert process.stdout is not None
    protocol = process.stdout.readline().split("|")
    return {
        "Protocol": "grpc",
        "ProtocolVersion": int(protocol[1]),
        "Pid": process.pid,
        "Test": True,
        "Addr": {"Network": protocol[2], "String": protocol[3]},
    }
