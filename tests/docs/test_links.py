"""What a page points to is there: files, headings, make targets, commands, settings, variables of Terraform."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def _pages() -> list[Path]:
    """Return the Markdown files of the repository, also those not committed yet."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()  # noqa: S603
    folders = (ROOT, ROOT / "docs", ROOT / "infra")
    return sorted(
        {ROOT / name for name in listed if (ROOT / name).is_file()}
        or {*ROOT.glob("*.md"), *folders[1].rglob("*.md"), *folders[2].rglob("*.md")}
    )


PAGES = _pages()


@cache
def _anchors(page: Path) -> frozenset[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _CODE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower() for heading in headings)
    return frozenset(re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain)


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link is a file or a folder, and its anchor a heading there."""
    for link in re.findall(r"\]\(([^)\s]+)\)", _CODE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), link
        if anchor:
            assert anchor in _anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_commands_and_names_exist(page: Path) -> None:
    """`make X`, `python -m X`, SWITCHYARD_X and files that are named in code."""
    text = page.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    made = set(re.findall(r"(?:`|^\s*|; |&& )make ([a-z-]+)", text, re.MULTILINE))
    assert made <= targets

    for module in set(re.findall(r"python -m ((?:deploy|local|tests|functions|shared)[\w.]*)", text)):
        place = ROOT / module.rstrip(".").replace(".", "/")
        assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), module

    for path in set(re.findall(r"`((?:docs|infra|tests|shared|functions|local|deploy|catalog|\.github|\.ci)/[\w./-]+)`", text)):
        placeholder = re.search(r"[A-Z]{3}", path.replace("README", ""))
        assert placeholder or (ROOT / path).exists() or (page.parent / path).exists(), path

    unknown = set(re.findall(r"`(SWITCHYARD_[A-Z_]*[A-Z])`", text)) - _settings()
    assert set() == unknown


@cache
def _settings() -> frozenset[str]:
    files = [*(ROOT / "shared").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    return frozenset(
        name for path in files for name in re.findall(r"\bSWITCHYARD_[A-Z_]*[A-Z]\b", path.read_text(encoding="utf-8"))
    )


def test_the_runbook_names_variables_and_outputs_that_terraform_has() -> None:
    """What it says to set can be set, and what it reads is printed."""
    terraform = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "infra" / "terraform").glob("*.tf"))
    text = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
    known = set(re.findall(r'^(?:variable|output) "(\w+)"', terraform, re.MULTILINE))

    outputs = set(re.findall(r"output -raw (\w+)", text))
    assert len(outputs) > 4
    assert outputs <= known
    assert set(re.findall(r"TF_VAR_(\w+)", text)) <= known
    assert {"private_networking", "openai_regions", "admin_key_version", "cost_budget_usd"} <= set(
        re.findall(r"`(\w+)", text)
    ) & known


def test_commands_can_be_pasted_into_any_shell() -> None:
    """In zsh, which macOS has, a comment behind a command is more arguments for it."""
    for page in PAGES:
        for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            assert [] == [line for line in block.splitlines() if re.search(r"(^|\s)#\s", line)], page.name
