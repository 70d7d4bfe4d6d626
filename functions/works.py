"""Every endpoint whose body can be stored and answered later, by its path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from functions import chat_completions, completions, embeddings, responses_asked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from functions.work import Work

WORKS: Final[Mapping[str, Work]] = {
    work.path: work for work in (chat_completions.WORK, completions.WORK, embeddings.WORK, responses_asked.WORK)
}
