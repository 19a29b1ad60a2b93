"""Many sessions of one model at once, whatever their lengths."""

from collections.abc import Sequence

from fwpkm.models.decoder import Decoder
from fwpkm.sessions.answer import AnswerText
from fwpkm.sessions.engine import Progress, Sampling, generate, read_tokens
from fwpkm.sessions.join import join_caches
from fwpkm.sessions.mark import read_documents
from fwpkm.sessions.session import MemorySession


def read_together(
    sessions: Sequence[MemorySession],
    texts: Sequence[str],
    *,
    times: int = 1,
    names: Sequence[str | None] | None = None,
    progress: Progress | None = None,
) -> None:
    """Let each session read its own text, all at once; one by one if one keeps a journal. See `MemorySession.read`.

    Raises:
        ValueError: If the sessions are not of one model, or there is not one text for each.
    """
    model = _one_model(sessions, texts, "texts")
    names = [None] * len(sessions) if names is None else names
    if any(session.keeps_journal for session in sessions):
        for session, text, name in zip(sessions, texts, names, strict=True):
            session.read(text, times=times, name=name, progress=progress)
        return
    ids = [s.encode(text, continuing=s.tokens_seen > 0) for s, text in zip(sessions, texts, strict=True)]
    marks = read_documents(
        model,
        [session.mark() for session in sessions],
        ids,
        names,
        times=times,
        piece=sessions[0].piece_tokens,
        progress=progress,
    )
    for session, mark in zip(sessions, marks, strict=True):
        session.rollback(to=mark)


def ask_together(
    sessions: Sequence[MemorySession],
    prompts: Sequence[str],
    sampling: Sampling = Sampling(),  # noqa: B008 - frozen
) -> list[str]:
    """Ask each session its own question, all at once; the sessions stay as they were.

    Raises:
        ValueError: If the sessions are not of one model, or there is not one prompt for each.
    """
    model = _one_model(sessions, prompts, "prompts")
    answers = [AnswerText(session.tokenizer, sampling.stop) for session in sessions]
    ids = [s.encode_prompt(prompt) for s, prompt in zip(sessions, prompts, strict=True)]
    cache = join_caches([session.cache.without_journal() for session in sessions])
    hidden, cache = read_tokens(model, cache, ids, piece=sessions[0].piece_tokens)
    for tokens, _ in generate(model, cache, hidden, sampling, lambda b, _: not answers[b].ended):
        for b, token in tokens.items():
            answers[b].add(token)
    return [answer.text for answer in answers]


def _one_model(sessions: Sequence[MemorySession], given: Sequence[str], what: str) -> Decoder:
    if not sessions or len(sessions) != len(given) or any(s.model is not sessions[0].model for s in sessions):
        raise ValueError(
            f"sessions: there must be one of {what} for each of one or more sessions of one model, got "
            f"{len(given)} for {len(sessions)} sessions of {len({id(s.model) for s in sessions})} models"
        )
    return sessions[0].model
