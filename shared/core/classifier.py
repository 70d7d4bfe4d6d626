"""What a request is for, when the caller did not say: words and phrases with scores, in one table.

What to do is said at the beginning or at the end of a text; between is what to do it to. So only the first and the last few
hundred characters are read, and the first and the last words count double. Each phrase adds its score to its task once; so do a
few signs that are not words: a question mark at the end, a line of code, a formula, a list to choose from. The highest sum
wins.

This is the simple detector: readable, instant, English first. A trained one can take its place behind `classify`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from shared.core.chat import Json

CODE: Final = "code-generation"
SUMMARIZATION: Final = "summarization"
CONVERSATION: Final = "conversation"
REASONING: Final = "reasoning"
EXTRACTION: Final = "extraction"
CLASSIFICATION: Final = "classification"
TRANSLATION: Final = "translation"
CREATIVE: Final = "creative-writing"
QUESTION: Final = "question-answering"

HEAD_LENGTH: Final = 320
TAIL_LENGTH: Final = 160
"""Characters read from the beginning and from the end of a text."""

LEAD_WORDS: Final = 12
"""Words at either end whose phrases count double."""

LONGEST_PHRASE: Final = 3
"""Words in the longest phrase of the table."""

CHAT_WORDS: Final = 8
"""Small talk is short: what speaks for it counts in full up to so many words, and less the longer a text is."""


@dataclass(frozen=True, slots=True)
class Classification:
    """The task found. ``confidence`` is its share of all scores, 0..1; ``rules`` are the phrases and signs that spoke for it.

    Phrases are the table's own words, never the text's.
    """

    task: str
    confidence: float
    rules: tuple[str, ...] = ()


PHRASES: Final[Mapping[str, Mapping[float, str]]] = {
    CODE: {
        6: "<code>",
        5: """
            python, javascript, typescript, java, c++, c#, sql, html, css, regex, regular expression, php, golang, kotlin, bash,
            react, django, tensorflow, numpy, pandas, jquery, unit test, api endpoint, stack trace, pull request, source code,
            code snippet, write code, write a function, write a program, write a script, refactor, debug, compile, mysql,
            postgresql, mongodb, css selector, write a query, recursion, neural network, linked list, binary tree, hash table
        """,
        3: """
            function, algorithm, script, array, arrays, code, coding, data type, xslt, shell script, asynchronous, html page,
            if else, css class, program, programming, sql query, data structure, pseudocode, api, boolean, integers, dataframe,
            json object, web page, webpage, for loop, compiler, syntax, database, codebase, rest api, given string, given list,
            substring, arraylist, software, framework
        """,
        1.5: """
            string, class, method, loop, variable, query, dictionary, library, implement, tuple, element, elements, regexp, bug
        """,
    },
    SUMMARIZATION: {
        7: """
            summarize, summarise, summary, summarizing, summarising, tl dr, tldr, sum up, condense, in a nutshell,
            boils down, key points, main points, distill, shorten, main takeaways, key takeaways, bullet points, abstract of,
            recap, write highlights, highlights for, generate a title, synthesize, synopsis, paraphrase this, summaries,
            in short, zusammenfassung, résumé, résume, resume este, resumen, riassumi, shorter version, summarized,
            this article means, text as a, points about
        """,
        3: "important points, main idea, short description, brief overview, overview of, short paragraph about",
        2: "briefly, headline, minutes of, essentials, this article, the article",
    },
    TRANSLATION: {
        14: "<into language>",
        9: "translate, translation, translated, translating, übersetze, traduire, traduis, traduce, traducir, traduci",
        3: "would you say, do you say",
    },
    EXTRACTION: {
        7: """
            extract, extracting, pull out, identify the nouns, identify the verbs, named entities, key entities,
            contact details, extrahiere, extraire, extrae
        """,
        5: """
            as json, json array, list every, find all mentions, get the names, all the names, the organisations,
            mentioned in, person names, proper nouns, fields from, following fields, get the list
        """,
        3: """
            from the passage, from the text, from the paragraph, from this text, from this paragraph, given the paragraph,
            reference text, following passage, following paragraph, given passage, given text, list the, from the following,
            passage provided, separated by commas, comma separated, the format, below text, text below, passage, entities
        """,
    },
    CLASSIFICATION: {
        7: """
            classify, categorize, categorise, sentiment, spam or, positive or negative, or dissatisfied, klassifiziere,
            rate this review, would you rate, not duplicates, the same thing, paraphrase of, expressing what,
            pick one category, which category, equivalent to, same meaning, categorize each, classifie, clasifica,
            what category, which section of, is this review, did the reviewer, label the, same thing
        """,
        5: """
            tell me whether, tell me which, identify which, which of the, which of these, whether the, whether each,
            split these, say whether, are alive, group the following, determine if, based on whether,
            would you recommend, one of the, negative or positive, rating of this, review text, this review, left by a,
            which is a, separate the following, two sentences, viewer feel, reviewer feel, what label, this news article,
            belong to, is this a, following into, paraphrase that, belongs to, state whether, which one is, which ones are
        """,
        3: """
            categories, category, duplicates, which one of, paraphrase, either, following as, mark each, real or fictional,
            or not
        """,
        2: "whether, which are, identify, following list, <list>, are considered",
    },
    REASONING: {
        9: """
            <formula>, <sum>, prove that, prove the, probability that, step by step, the probability, logic puzzle,
            different houses, in a row, houses next to, one person living, solve for, solve the equation, how many ways,
            remainder when, following clues
        """,
        4: """
            how many more, how much more, in total, altogether, each day, per hour, percent, twice as, half as, times as,
            positive integer, positive integers, triangle, perimeter, the value of, the area of, puzzle, riddle, calculate,
            compute, prime numbers, if the price, how old is, degrees, radius, solve, equation, how long will, ratio, evaluate,
            average of
        """,
        2: """
            each, total, sum of, cost, costs, deduce, how many, how much, find the, left, rate, difference between, times,
            the number of
        """,
    },
    CREATIVE: {
        8: """
            poem, haiku, short story, write a story, a story, limerick, song lyrics, screenplay, sonnet, fairy tale, lyrics,
            blog post, diary entry, slogan, tagline, love letter, write a letter, write an essay, write a speech,
            product description, rap, write a song, tweet, cover letter, gedicht, poème, poema, cuento, rhyme, write a blog,
            bedtime story, storyline, role play
        """,
        6: """
            brainstorm, imagine, star review, expanded news, write a paragraph, sentence with all, coherent sentence, essay,
            write an article, write an email, come up with, pretend, pretend you, write me a, write a short, fictional,
            plot points, creative, name ideas, names for, invent, story about, generate a story, dialogue between,
            write a review
        """,
        2: "compose, give me ideas, ideas for, tips for, funny, instructions to, describe a, your favorite",
        1: "write a, write an, generate a",
    },
    CONVERSATION: {
        5: """
            hello, hi, hey, thanks, thank you, good morning, good night, good evening, good afternoon, how are you,
            nice to meet, see you, bye, goodbye, lol, haha, hola, bonjour, hallo, danke, gracias, merci, ciao, you a robot,
            are you human, who are you, talk to me, well done, good job, i love you, i like you, your name, i am sorry,
            my birthday, are you, do you, your, you are, you're, i'm, i am
        """,
        3: """
            <short>, my, sorry, ok, okay, yes, no, please, welcome, me, we, can you, would you, will you, let's, i'll, don't,
            i think, i feel, i was, i need, i want, what's, you, i
        """,
    },
    QUESTION: {
        6: """
            answer the question, answer for the, answer to the, best option, no answer, following question,
            contains an answer, correct answer, the answer is, answer this
        """,
        4: "<question>, <asks>",
        3: """
            who is, who was, when did, when was, why do, why is, why does, how does, how did, explain, tell me about,
            which country, which city, who wrote, who sang, who played, what year, what is a, what is the, what was the,
            in which, for which, the name of, name of, called
        """,
        1.5: "context, a list of, question, list, name, describe, best, difference, answer, what, who, where, when, why",
    },
}
"""For each task its phrases by their score, between commas; those in angle brackets are the signs of `_signs`."""

UNSPACED: Final[Mapping[str, str]] = {
    CODE: "代码 函数 编程 程序 コード 関数 코드 함수",
    SUMMARIZATION: "总结 摘要 概括 總結 要約 まとめて 요약",
    TRANSLATION: "翻译 翻譯 翻訳 번역",
    EXTRACTION: "提取 抽取 抽出 추출",
    CLASSIFICATION: "分类 分類 情感 분류",
    REASONING: "计算 证明 推理 計算 証明 계산",
    CREATIVE: "写一首 写一篇 故事 诗 物語 小説 시를 이야기를",
    QUESTION: "什么 为什么 谁是 哪个 如何 何ですか なぜ 무엇 왜",
}
"""Phrases of languages that put no space between words, or endings on them: looked for anywhere, `UNSPACED_SCORE` each."""

UNSPACED_SCORE: Final = 6.0

Votes = tuple[tuple[str, float], ...]


def _table() -> dict[str, dict[str, Votes]]:
    """Return each phrase's tasks and scores under its first word: most words begin none, and cost one look-up."""
    table: dict[str, dict[str, Votes]] = {}
    for task, by_score in PHRASES.items():
        for score, text in by_score.items():
            for phrase in (" ".join(part.split()) for part in text.split(",")):
                first = phrase if phrase.startswith("<") else phrase.split(" ")[0]
                phrases = table.setdefault(first, {})
                phrases[phrase] = (*phrases.get(phrase, ()), (task, score))
    return table


_TABLE: Final = _table()
_UNSPACED: Final = tuple((phrase, ((task, UNSPACED_SCORE),)) for task, text in UNSPACED.items() for phrase in text.split())

# Every repetition in these is bounded: no text makes them slow.
_WORDS: Final = re.compile(r"[^\W_]+(?:['’][^\W_]+)?[+#]{0,2}")
_CODE: Final = re.compile(
    r"^\s{0,40}(?:def |class |import |from \w{1,40} import|#include|function |public |const |let |var |SELECT |return\b)"
    r"|[;{}]\s{0,3}$|\w\(\w{0,40}\)\s{0,3}[{:;]|</\w{1,20}>|^\s{0,40}<\w{1,20}>|```|=>|\+=|==|!=",
    re.MULTILINE,
)
_CODE_LETTERS: Final = re.compile(r"[(){};=<>`]|\b(?:def|class|import|const|let|var|SELECT|return)\b")
_FORMULA: Final = re.compile(
    r"\\(?:frac|sqrt|text|math|cdot|left|begin)|\$[^$\s][^$\n]{0,60}\$|\d\s?[-+*/^]\s?\d{1,9}\s?="
    r"|\b[xyn]\s?[=^]\s?\d|\b[xyn]\^"
)
_LANGUAGE: Final = (
    "english|french|german|spanish|italian|portuguese|dutch|russian|chinese|mandarin|japanese|korean|turkish|arabic|hindi"
    "|polish|swedish|greek|hebrew|czech|danish|finnish|norwegian|hungarian|romanian|ukrainian|vietnamese|thai|indonesian|latin"
)
_LANGUAGES: Final = frozenset(_LANGUAGE.split("|"))
_INTO_LANGUAGE: Final = re.compile(
    rf"\b(?:in|into|to|the)\s(?:{_LANGUAGE})(?:\s(?:for|translation)|\s?[:?.\n]|$)", re.IGNORECASE
)
_LIST: Final = re.compile(r":[^:?.\n]{1,60},[^:?.\n]{1,60},")
_NUMBER: Final = re.compile(r"\d+")
_QUESTION_WORDS: Final = (
    "what who where when why how which whose whom is are was were do does did can could should would has have"
)
_ASKS: Final = frozenset(_QUESTION_WORDS.split())
_MEASURES: Final = frozenset({"many", "much", "total", "cost", "far", "long", "old", "left", "more", "percentage", "percent"})
_SHORT: Final = 6
_FEW_NUMBERS: Final = 3


def classify(text: str) -> Classification:
    """Return the task a text asks for; an empty text is a conversation."""
    text = text.strip()
    window = text if len(text) <= HEAD_LENGTH + TAIL_LENGTH else f"{text[:HEAD_LENGTH]}\n{text[-TAIL_LENGTH:]}"
    words = _WORDS.findall(window.lower())
    found = {sign: (1.0, _TABLE[sign][sign]) for sign in _signs(window, words)}
    if not window.isascii():
        found.update((phrase, (1.0, votes)) for phrase, votes in _UNSPACED if phrase in window)
    last = len(words) - LEAD_WORDS
    for place, word in enumerate(words):
        phrases = _TABLE.get(word)
        if phrases is None:
            continue
        weight = 2.0 if place < LEAD_WORDS or place >= last else 1.0
        phrase = ""
        for following in words[place : place + LONGEST_PHRASE]:
            phrase = f"{phrase} {following}" if phrase else following
            if phrase in phrases and (phrase not in found or found[phrase][0] < weight):
                found[phrase] = (weight, phrases[phrase])
    return _decide(found, len(words))


def _decide(found: Mapping[str, tuple[float, Votes]], length: int) -> Classification:
    scores: dict[str, float] = {}
    for weight, votes in found.values():
        for task, score in votes:
            scores[task] = scores.get(task, 0.0) + score * weight
    if CONVERSATION in scores:
        scores[CONVERSATION] *= min(1.0, CHAT_WORDS / max(length, 1))
    if not scores:
        return Classification(CONVERSATION, 0.0)
    best = max(scores, key=scores.__getitem__)
    rules = tuple([phrase for phrase, (_, votes) in found.items() for task, _ in votes if task == best])
    return Classification(best, scores[best] / sum(scores.values()), rules)


def _signs(window: str, words: list[str]) -> Iterator[str]:
    # Each sign has a cheap test before the dear one: most texts have none of them.
    if _CODE_LETTERS.search(window) and _CODE.search(window):
        yield "<code>"
    if ("$" in window or "\\" in window or "^" in window or "=" in window) and _FORMULA.search(window):
        yield "<formula>"
    if not _LANGUAGES.isdisjoint(words) and _INTO_LANGUAGE.search(window):
        yield "<into language>"
    if ":" in window and _LIST.search(window):
        yield "<list>"
    if window.endswith("?"):
        yield "<question>"
    if words and words[0] in _ASKS:
        yield "<asks>"
    if len(words) <= _SHORT:
        yield "<short>"
    if not _MEASURES.isdisjoint(words) and len(_NUMBER.findall(window)) >= _FEW_NUMBERS:
        yield "<sum>"


def text_of(payload: Json) -> str:
    """Return the text that says what to do: the last message of the user, or a completion's prompt, without its middle.

    Costs the same for ten bytes and ten megabytes.
    """
    messages = payload.get("messages")
    if not isinstance(messages, list):
        prompt = payload.get("prompt")
        return _ends(prompt) if isinstance(prompt, str) else ""
    for message in reversed(messages):
        if isinstance(message, dict) and message.get("role") == "user":
            return _text(message.get("content"))
    return ""


def _text(content: object) -> str:
    if isinstance(content, str):
        return _ends(content)
    if isinstance(content, list):
        texts = (part.get("text") for part in content if isinstance(part, dict))
        return next((_ends(text) for text in texts if isinstance(text, str) and text), "")
    return ""


def _ends(text: str) -> str:
    most = 2 * HEAD_LENGTH
    return text if len(text) <= 2 * most else f"{text[:most]}\n{text[-most:]}"
