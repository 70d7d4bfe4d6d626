"""Which YAML is taken, and that no text whatever does harm."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.catalog_samples import GOOD, UNTOLD, changed, problems, registry

REFUSED: dict[str, tuple[str, str]] = {
    "nothing": ("", "catalog.yaml: is empty"),
    "only a comment": ("# later\n", "catalog.yaml: is empty"),
    "a list": ("- a\n", "catalog.yaml:1: must be a mapping"),
    "a word": ("hello", "catalog.yaml:1: must be a mapping"),
    "anchor": ("a: &x 1\n", "catalog.yaml:1: YAML anchors (&name) are not allowed"),
    "alias": ("a: &x 1\nb: *x\n", "catalog.yaml:2: YAML aliases (*name) are not allowed"),
    "merge key": ("models:\n  <<: {a: 1}\n", "catalog.yaml:2: models: YAML merge keys (<<) are not allowed"),
    "tag": ("a: !!python/object/apply:os.system ['true']\n", "catalog.yaml:1: YAML tags (!name) are not allowed"),
    "standard tag": ("a: !!int 3\n", "YAML tags (!name) are not allowed"),
    "key twice": ("policy: {}\npolicy: {}\n", "catalog.yaml:2: policy: is here twice (first on line 1)"),
    "two documents": ("policy: {}\n---\npolicy: {}\n", "catalog.yaml:2: a second YAML document"),
    "key that is a list": ("? [a]\n: 1\n", "a key must be plain text"),
    "empty key": ("'': 1\n", "a key is empty"),
    "deep lists": ("a: " + "[" * 40, "nested more than 24 deep"),
    "very deep lists": ("[" * 200_000, "nested more than 24 deep"),
    "very deep mappings": ("{a: " * 100_000, "nested more than 24 deep"),
    "deep blocks": ("".join(" " * level + "a:\n" for level in range(60)), "nested more than 24 deep"),
    "open bracket": ("a: [1, 2\n", "catalog.yaml:2: is not valid YAML"),
    "tab": ("a:\n\tb: 1\n", "catalog.yaml:2: is not valid YAML"),
    "control character": ("a: \x01\n", "is not valid YAML"),
    "null byte": ("a: \x00\n", "is not valid YAML"),
    "half an emoji": ("a: \ud83d\n", "half a surrogate pair"),
    "unknown escape": ('a: "\\z"\n', "catalog.yaml:1: is not valid YAML"),
}


@pytest.mark.parametrize(("text", "expected"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(text: str, expected: str) -> None:
    """Each is told with its line, in our words, and before it grows beyond measure."""
    begun = time.thread_time()
    found = problems(text)
    assert time.thread_time() - begun < 10
    assert any(expected in problem for problem in found), found


def test_a_billion_laughs_does_not_explode() -> None:
    """289 bytes of aliases are refused, not expanded."""
    laughs = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    laughs += "".join(
        f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert any("YAML aliases (*name) are not allowed" in problem for problem in problems(laughs))


def test_too_many_values_are_refused() -> None:
    """A text of a megabyte of nothing is cut off."""
    assert any("more than 200000 values" in one for one in problems("a: [" + "1," * 300_000 + "]"))


def test_too_long_a_text_is_refused() -> None:
    """Before it is read."""
    assert any("is longer than" in one for one in problems("#" * 5_000_000))


def test_lines_of_a_byte_order_mark_and_windows_endings() -> None:
    """Files saved on Windows mean the same."""
    assert registry().models == registry(GOOD.replace("\n", "\r\n")).models


FRAGMENTS = st.sampled_from(
    [*GOOD.splitlines(keepends=True), "&a ", "*a", "<<: ", "!x ", "[", "]", "{", "}", ": ", "- ", "\n", "${A}", "${", "-1", "~"]
)


@settings(max_examples=150, deadline=None)
@given(text=st.one_of(st.text(max_size=200), st.lists(FRAGMENTS, max_size=40).map("".join)))
def test_no_text_gives_anything_but_a_registry_or_problems(text: str) -> None:
    """Whatever is in the file, the loader answers with a registry or a ConfigurationError that says what is wrong."""
    found = problems(text)
    assert UNTOLD not in found
    assert all(problem.startswith("catalog.yaml") for problem in found)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_spoilt_good_catalog_gives_a_registry_or_problems(data: st.DataObject) -> None:
    """So does every catalog that is almost right: a line lost, doubled or replaced."""
    lines = GOOD.splitlines(keepends=True)
    at = data.draw(st.integers(0, len(lines) - 1))
    lines[at : at + 1] = data.draw(st.lists(st.one_of(FRAGMENTS, st.text(max_size=20)), max_size=3))
    assert UNTOLD not in problems("".join(lines))


JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=10), inner, max_size=3)),
    max_leaves=10,
)


@settings(max_examples=100, deadline=None)
@given(
    path=st.sampled_from(["capabilities", "deployments", "quality", "context_window", "lifecycle", "auto", "tasks"]),
    value=JSON_VALUES,
)
def test_a_number_or_a_list_in_the_wrong_place_is_a_problem(path: str, value: object) -> None:
    """Registered documents are JSON: every value in every place gives a registry or problems."""
    document = {"capabilities": ["chat"], "deployments": [{"provider": "vendor", "prices": []}], path: value}
    assert UNTOLD not in problems(GOOD, overlay={"new": document})


def test_the_good_catalog_is_good() -> None:
    """The samples themselves."""
    assert () == problems(changed())
