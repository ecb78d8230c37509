"""Text to token ids and back; words of the stream protocol are reserved."""

import json
from pathlib import Path

from tokenizers import Tokenizer as HFTokenizer

from vrex.errors import UserError
from vrex.sw.videollm.config import ModelConfig

LONGEST_QUESTION = 4096
"""Most tokens of a question."""
LONGEST_TEXT = 32 * LONGEST_QUESTION
"""Most characters of a question, looked at before it is split."""
_SHOWN_WORDS = 12
_SHOWN_CHARACTERS = 60


class Tokenizer:
    """The checkpoint's tokenizer.json and its protocol words.

    Args:
        path: the tokenizer.json.
        config: names the protocol words and the size of the vocabulary.

    Raises:
        UserError: the file is missing or broken, or lacks a protocol word.
    """

    def __init__(self, path: Path, config: ModelConfig) -> None:
        self._path = path
        if not path.is_file():
            raise UserError(f"{path} is missing; the checkpoint is incomplete")
        try:
            text = path.read_text(encoding="utf-8")
            self._tokenizer = HFTokenizer.from_str(text)
            unknown = json.loads(text)["model"].get("unk_token")
        except Exception as error:  # the tokenizers package raises plain Exception
            raise UserError(f"{path} is not a valid tokenizer.json ({error}); restore the file") from error
        if max(self._tokenizer.get_vocab().values(), default=0) >= config.text.vocab_size:
            raise UserError(f"{path} holds ids beyond the config's vocab_size of {config.text.vocab_size}")
        self._unknown = self._tokenizer.token_to_id(unknown) if unknown else None
        self._config = config
        self.interval = self.word(config.interval)
        self._reserved = {*config.text.eos}
        if config.text.bos is not None:
            self._reserved.add(config.text.bos)
        if config.system is None:
            self._reserved.add(self.word(config.placeholder))
            for word in (config.stream_open, config.stream_close, config.user, config.assistant):
                self.word(word)

    def opening(self, mode: str, question: str | None = None) -> list[int]:
        """Ids before the first frame of a stream, whose mode is "quiet" or "narrate".

        Args:
            mode: see above.
            question: what is asked before the first frame, if anything.

        Raises:
            UserError: the question is empty, too long, or holds a word that the model does not know.
        """
        config = self._config
        bos = [] if config.text.bos is None else [config.text.bos]
        if config.system is None:
            asked = [] if question is None else [self.word(config.user), *self._encode_question(question)]
            return [*bos, self.word(mode), *asked, self.word(config.stream_open)]
        if question is not None:
            self._encode_question(question)
        said = "" if question is None else f"{config.user} {question}\n"
        return [*bos, *self._encode(f"{config.system}\n\n{said}{config.stream_open}")]

    def turn(self, question: str | None) -> list[int]:
        """Ids that end a run of frames and let the model speak, on a question or of its own accord.

        Raises:
            UserError: the question is empty, too long, or holds a word that the model does not know.
        """
        config = self._config
        asked = [] if question is None else self._encode_question(question)
        if config.system is None:
            words = [self.word(word) for word in (config.stream_close, config.user, config.assistant)]
            return [words[0], *([] if question is None else [words[1], *asked]), words[2]]
        said = "" if question is None else f"\n{config.user} {question}"
        return self._encode(f"{config.stream_close}{said}\n{config.assistant}")

    def resume(self) -> list[int]:
        """Ids between the end of an answer and the next frame."""
        config = self._config
        if config.system is None:
            return [self.word(config.stream_open)]
        return self._encode(f"\n{config.stream_open}")

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def word(self, word: str) -> int:
        """The id of one protocol word.

        Raises:
            UserError: the tokenizer lacks the word.
        """
        found = self._tokenizer.token_to_id(word)
        if found is None:
            raise UserError(f"{self._path} lacks the word {word!r}, which the stream protocol needs")
        return found

    def knows(self, word: str) -> bool:
        """Whether the word is one of the tokens."""
        return self._tokenizer.token_to_id(word) is not None

    def _encode_question(self, question: str) -> list[int]:
        if len(question) > LONGEST_TEXT:
            raise UserError(
                f'question "{shortened(question)}" has {len(question):,} characters; '
                f"ask with at most {LONGEST_TEXT:,}"
            )
        encoded = self._tokenizer.encode(question, add_special_tokens=False)
        if not encoded.ids:
            raise UserError("a question is empty; write what to ask")
        if len(encoded.ids) > LONGEST_QUESTION:
            raise UserError(
                f'question "{shortened(question)}" has {len(encoded.ids):,} tokens; '
                f"ask with at most {LONGEST_QUESTION:,}"
            )
        for token, (start, end) in zip(encoded.ids, encoded.offsets, strict=True):
            if token == self._unknown or token in self._reserved:
                raise UserError(
                    f'question "{shortened(question)}": the model does not know the word '
                    f'"{shortened(question[start:end])}"; it knows {self._known_words()}'
                )
        return list(encoded.ids)

    def decode(self, ids: list[int]) -> str:
        """Token ids of an answer to text."""
        return self._tokenizer.decode(ids, skip_special_tokens=True)

    def _known_words(self) -> str:
        config = self._config
        words = (config.stream_open, config.stream_close, config.user, config.assistant)
        protocol = {self.interval, *map(self._tokenizer.token_to_id, words)}
        hidden = self._reserved | protocol | {self._unknown}
        by_id = sorted((i, word) for word, i in self._tokenizer.get_vocab().items() if i not in hidden)
        known = [word for _, word in by_id]
        rest = len(known) - _SHOWN_WORDS
        return ", ".join(known[:_SHOWN_WORDS]) + (f" and {rest} more words" if rest > 0 else "")


def shortened(question: str) -> str:
    """The beginning of a question, for a message."""
    whole = len(question) <= _SHOWN_CHARACTERS
    return question if whole else question[: _SHOWN_CHARACTERS - 3] + "..."
