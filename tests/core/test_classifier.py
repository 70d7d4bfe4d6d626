"""The task detector: the table finds what people ask for, at the same cost for any text."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.core.classifier import LONGEST_PHRASE, PHRASES, Classification, classify, text_of


@pytest.mark.parametrize(
    ("text", "task"),
    [
        ("Write a Python function to sort a list", "code-generation"),
        ("Summarize this article about climate change", "summarization"),
        ("Why does this SQL query return duplicates?\nSELECT a FROM b JOIN c ON b.id = c.id;", "code-generation"),
        ("TL;DR of the meeting notes below, please:\nAnna said that we ship on Friday.", "summarization"),
        ("Translate into French: where is the station?", "translation"),
        ("How do you say good luck in Japanese?", "translation"),
        ("Übersetze bitte: The cat is on the roof.", "translation"),
        ("Extract all e-mail addresses and phone numbers from the text below:\nAnna, 555-1234", "extraction"),
        ("Classify each ticket as bug, question or praise: it crashes, thank you, how do I log in", "classification"),
        ("Is this review positive or negative? The battery died after a day.", "classification"),
        ("Write a poem about a lighthouse in winter", "creative-writing"),
        ("Brainstorm ten names for a bakery", "creative-writing"),
        ("A train leaves at 9 and goes 60 km per hour. After 3 hours, how many km are left of 400?", "reasoning"),
        ("Prove that the square root of two is irrational", "reasoning"),
        ("Who wrote Middlemarch?", "question-answering"),
        ("What is the capital of Mongolia?", "question-answering"),
        ("hello there", "conversation"),
        ("thanks, that was kind of you", "conversation"),
        ("", "conversation"),
        ("请把这段话翻译成英文", "translation"),
        ("次の文章を要約してください", "summarization"),
    ],
)
def test_plain_requests_are_recognised(text: str, task: str) -> None:
    """One of each kind, and the cases the first description of the product names."""
    assert task == classify(text).task


def test_what_matched_is_shown() -> None:
    """The rules are the table's phrases; the confidence is the task's share of all scores."""
    found = classify("Summarize the function")
    assert "summarization" == found.task
    assert "summarize" in found.rules
    assert 0.5 < found.confidence < 1.0
    assert Classification("conversation", 0.0) == classify("zzz qqq xxx vvv kkk jjj www ppp")


def test_the_instruction_may_stand_at_the_end_of_a_long_text() -> None:
    """What is between the beginning and the end is what to do it to."""
    novel = "It rained on the hills and the river rose by the old mill. " * 2_000
    assert "translation" == classify(f"{novel}\nTranslate the text above into German.").task
    assert "translation" == classify(f"Translate the text below into German.\n{novel}").task


def test_every_phrase_of_the_table_can_match() -> None:
    """No phrase is longer than the words looked at, and none has signs in it that words do not."""
    for by_score in PHRASES.values():
        for text in by_score.values():
            for phrase in (" ".join(part.split()) for part in text.split(",")):
                assert phrase
                assert len(phrase.split()) <= LONGEST_PHRASE, phrase
                if not phrase.startswith("<"):
                    assert 0 < classify(phrase).confidence, phrase


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=600))
def test_any_text_gets_a_known_task(text: str) -> None:
    """With a confidence that is a share."""
    found = classify(text)
    assert found.task in PHRASES
    assert 0.0 <= found.confidence <= 1.0


@pytest.mark.parametrize(
    "unit",
    ["a", " ", "\n \n", "(", "f(", "x(y)", "1 ", "$a", "<a", ":a,", "a'", ";   ", "in english ", "{", "\\", "1+", "def "],
)
def test_no_text_is_slow(unit: str) -> None:
    """Ten megabytes of what patterns stumble over cost no more than a page.

    That is some milliseconds of processor time; a pattern that goes back over its steps needs seconds even for a page.
    """
    payload = {"messages": [{"role": "user", "content": unit * (10_000_000 // len(unit))}]}
    began = time.thread_time()
    classify(text_of(payload))
    assert 0.5 > time.thread_time() - began


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ({"messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]}, "one"),
        ({"messages": [{"role": "user", "content": "one"}, {"role": "user", "content": "two"}]}, "two"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}, {"type": "text", "text": "see"}]}]}, "see"),
        ({"messages": [{"role": "system", "content": "be kind"}]}, ""),
        ({"messages": "odd"}, ""),
        ({"messages": [None, 3, {"role": "user", "content": 7}]}, ""),
        ({"prompt": "go on"}, "go on"),
        ({}, ""),
    ],
)
def test_the_last_message_of_the_user_says_what_to_do(payload: dict[str, object], text: str) -> None:
    """And odd content says nothing."""
    assert text == text_of(payload)
