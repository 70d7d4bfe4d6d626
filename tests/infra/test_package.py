"""What is published: exactly the app, the same bytes from the same tree, and it starts alone."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from deploy import ignore
from deploy.errors import DeployError
from deploy.package import BUILD_FILE, collect
from functions.surface import registered

ROOT = Path(__file__).resolve().parents[2]

# Prints what the worker would index and everything that was loaded for it, from the folder it is started in.
INDEX = """
import json, sys
sys.path.insert(0, ".")
import function_app
print(json.dumps({
    "functions": [one.get_function_name() for one in function_app.app.get_functions()],
    "files": sorted({str(m.__file__) for m in sys.modules.values() if getattr(m, "__file__", None)}),
}))
"""


def _tree(root: Path, **files: str) -> Path:
    for name, text in {
        "function_app.py": "",
        "host.json": "{}",
        "requirements.txt": "a==1\n",
        ".funcignore": "",
        **files,
    }.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def test_the_package_is_the_app_and_nothing_else() -> None:
    """No test, tool, document, local engine or secret, whatever lies about in the tree."""
    package = collect(ROOT)

    assert ["catalog/", "constraints.txt", "function_app.py", "functions/", "host.json", "requirements.txt", "shared/"] == [
        name for name, _, _ in package.listing()
    ]
    kinds = {Path(name).suffix for name in package.files if name.startswith(("functions/", "shared/"))}
    assert kinds <= {".py", ".html", ".js", ".css", ".json", ".gz", ".txt", ".svg"}
    outside = re.compile(rb"^\s*(?:import|from) (?:deploy|local|tests)\b", re.MULTILINE)
    assert [] == [name for name, content in package.files.items() if name.endswith(".py") and outside.search(content)]
    assert not [name for name in package.files if "__pycache__" in name or "/." in name or name.startswith(".")]


def test_the_package_starts_alone(tmp_path: Path) -> None:
    """Unpacked in an empty folder it gives the worker every function, from its own files only."""
    archive = tmp_path / "package.zip"
    package = collect(ROOT)
    package.write(archive)
    home = tmp_path / "wwwroot"
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(home)

    command = [sys.executable, "-P", "-W", "ignore", "-c", INDEX]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)

    assert package.build == (home / BUILD_FILE).read_text(encoding="utf-8").strip()
    assert sorted(str(one.get_function_name()) for one in registered().get_functions()) == sorted(found["functions"])
    ours = [name for name in found["files"] if name.startswith(str(ROOT)) and "/.venv/" not in name]
    assert [] == ours


def test_the_same_tree_gives_the_same_bytes(tmp_path: Path) -> None:
    """Times, rights and the order of the folder do not matter; a changed byte does, in the bytes and in the name."""
    first = collect(_tree(tmp_path / "a", shared__one="1", shared__two="2"))
    again = collect(_tree(tmp_path / "b", shared__two="2", shared__one="1"))
    (tmp_path / "b" / "shared" / "one").chmod(0o755)
    other = collect(_tree(tmp_path / "c", shared__one="1", shared__two="3"))

    zips = []
    for name, package in (("a", first), ("b", again), ("c", other)):
        package.write(tmp_path / f"{name}.zip")
        zips.append((tmp_path / f"{name}.zip").read_bytes())
    assert zips[0] == zips[1]
    assert zips[0] != zips[2]
    assert first.build == again.build != other.build


def test_extras_are_merged_into_the_one_file_the_remote_build_reads(tmp_path: Path) -> None:
    """Its lines follow; what it refers to is there already."""
    root = _tree(tmp_path, **{"requirements-redis.txt": "# why\n-r requirements.txt\nredis==8\n"})

    assert b"a==1\n# why\nredis==8\n" == collect(root, extra_requirements=["requirements-redis.txt"]).files["requirements.txt"]
    for name in ("requirements-none.txt", "../requirements-redis.txt"):
        with pytest.raises(DeployError, match=r"no .*beside requirements\.txt"):
            collect(root, extra_requirements=[name])


def test_what_cannot_be_published_is_said(tmp_path: Path) -> None:
    """A tree without rules, without an app, or with a link out of it."""
    root = _tree(tmp_path)
    (root / "shared").symlink_to(ROOT / "shared")
    with pytest.raises(DeployError, match="shared is a link"):
        collect(root)
    (root / "shared").unlink()
    (root / "host.json").unlink()
    with pytest.raises(DeployError, match=r"no host\.json"):
        collect(root)
    (root / ".funcignore").unlink()
    with pytest.raises(DeployError, match=r"no \.funcignore"):
        collect(root)


_LINES = [
    "a",
    "/a",
    "a/",
    "!a",
    "!/a",
    "*.py",
    "!b.py",
    "a/*",
    "a/**",
    "**/b",
    "a/**/b.py",
    "/*",
    "b?",
    "[ab]",
    "[!a]",
    "# a",
    "",
    "a ",
    "!a/b",
]
_NAMES = ["a", "b", "b.py", "c.py", "ab"]


def test_rules_mean_what_they_mean_to_git(tmp_path: Path) -> None:
    """Held against git itself: each case is a folder with its rules and a path in it."""
    chance = random.Random(20261123)
    cases = [
        (
            [chance.choice(_LINES) for _ in range(chance.randrange(6))],
            "/".join(chance.choices(_NAMES, k=chance.randrange(1, 4))),
        )
        for _ in range(1000)
    ]
    for number, (lines, _) in enumerate(cases):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / ".gitignore").write_text("\n".join(lines), encoding="utf-8")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    asked = "\n".join(f"{number}/{path}" for number, (_, path) in enumerate(cases))
    command = ["git", "-C", str(tmp_path), "check-ignore", "--no-index", "--stdin"]
    left_out = set(subprocess.run(command, input=asked, capture_output=True, text=True, check=False).stdout.splitlines())

    assert 200 < len(left_out) < 800
    for number, (lines, path) in enumerate(cases):
        assert (f"{number}/{path}" in left_out) == ignore.ignored(path, ignore.parse("\n".join(lines))), (lines, path)
