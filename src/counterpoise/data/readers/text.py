"""Texts to numbers."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import re
import string
import threading
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from counterpoise import _checks
from counterpoise._checks import whole
from counterpoise.data.readers.base import Reader, ReadError, flag

_one_at_a_time = threading.Lock()  # fast tokenisers refuse to set their cut and padding in two threads at once
_STRIPPED = string.punctuation + "“”‘’„«»…–—"
_CLEANINGS = ("none", "caption", "letters")
_CAPTION = str.maketrans({**dict.fromkeys(",.'!?\"()*#:;~"), "-": " ", "/": " "})
_LETTERS = re.compile(r"\b[A-Za-z]+\b")


class Text(Reader):
    """A text as (length,) int64 token numbers, padded at the end with `padding`.

    ``words`` needs no vocabulary file: words are separated by space, freed of punctuation around
    them, lower-cased, and numbered 1 to ``vocabulary`` - 1 by a hash that is the same on every
    machine (two words may share a number). Any other name is a tokeniser of Hugging Face, by its
    name on the hub or a local folder; it cuts and pads with its own rules and special tokens.

    A text in which no word is left is an error: a sample without text has an empty cell, which
    makes the modality absent.

    Args:
        tokenizer: ``words``, or the name or path of a Hugging Face tokeniser.
        length: token numbers per sample; longer texts are cut.
        vocabulary: how many numbers ``words`` uses, padding included; a tokeniser has its own.
        alphabetic: keep only words made of letters, before anything else.
        words: keep only so many words, before the tokeniser splits them further.
        cleaning: what is done to the text before it is split into words. ``caption`` (the sarcasm set in
            the released code of IGM) lower-cases it, deletes ``,.'!?"()*#:;~`` and turns ``-`` and ``/``
            into spaces; ``letters`` (Twitter2015 there) first keeps only runs of the letters A to Z that no
            digit or other letter touches, so that ``can't`` becomes ``can t``; ``none`` leaves it.
    """

    kind = "text"
    recording = "words"
    reads_files = False
    takes = "a text"
    decoded_by = ("tokenizer", "length", "vocabulary", "alphabetic", "words", "cleaning")

    def __init__(
        self,
        tokenizer: str = "words",
        length: int = 64,
        vocabulary: int = 20000,
        alphabetic: bool = False,
        words: int | None = None,
        cleaning: Literal["none", "caption", "letters"] = "none",
    ):
        if not isinstance(tokenizer, str) or not tokenizer:
            raise ValueError(f"tokenizer must be 'words' or the name of a Hugging Face tokeniser; got {tokenizer!r}.")
        self.tokenizer = tokenizer
        self.length = whole("length", length, low=1)
        self.vocabulary = whole("vocabulary", vocabulary, low=2)
        self.alphabetic = flag("alphabetic", alphabetic)
        self.words = None if words is None else whole("words", words, low=1)
        self.cleaning = _checks.choice("cleaning", cleaning, _CLEANINGS)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.length,)

    @property
    def dtype(self) -> torch.dtype:
        return torch.int64

    @property
    def padding(self) -> int:
        """The number that fills short texts: 0 for ``words`` and BERT, else what the tokeniser says."""
        return 0 if self.tokenizer == "words" else _pretrained(self.tokenizer).pad_token_id

    @property
    def vocab_size(self) -> int:
        """How many token numbers there are, padding included: the size of an embedding."""
        if self.tokenizer == "words":
            return self.vocabulary
        tokenizer = _pretrained(self.tokenizer)
        return max(len(tokenizer), 1 + max(tokenizer.get_vocab().values()))  # numbers may have gaps

    def decode(self, cell: str) -> Tensor:
        if self.tokenizer != "words":
            _pretrained(self.tokenizer)  # here, because a missing tokeniser is not the fault of a cell
        return super().decode(cell)

    def load(self, cell: str) -> Tensor:
        words = self._cleaned(cell)
        if self.tokenizer == "words":
            numbers = [_number(word, self.vocabulary) for word in words[: self.length]]
            numbers += [0] * (self.length - len(numbers))
        else:
            tokenizer = _pretrained(self.tokenizer)
            with _one_at_a_time:
                numbers = tokenizer(" ".join(words), truncation=True, max_length=self.length, padding="max_length")
            numbers = numbers["input_ids"]
        return torch.tensor(numbers, dtype=torch.int64)

    def altered(self, cell: Any, alter: Callable[[Any], Any]) -> Tensor:
        return self.read(" ".join(alter(self._cleaned(cell))))

    def transform(self, decoded: Tensor, generator: torch.Generator | None) -> Tensor:
        return decoded.clone()

    def _cleaned(self, text: str) -> list[str]:
        words = _clean(text, self.cleaning).split()
        if self.tokenizer == "words":
            words = [word for word in (word.strip(_STRIPPED).lower() for word in words) if word]
        if self.alphabetic:
            words = [word for word in words if word.isalpha()]
        if not words:
            rule = "of letters only (alphabetic=True)" if self.alphabetic else "at all"
            if self.cleaning != "none":
                rule += f" after cleaning={self.cleaning!r}"
            raise ReadError(repr(text), f"empty text: every text needs at least one word, this one has none {rule}")
        return words[: self.words]


def _clean(text: str, cleaning: str) -> str:
    if cleaning == "none":
        return text
    if cleaning == "letters":
        text = " ".join(_LETTERS.findall(text))
    return text.lower().translate(_CAPTION)


def _number(word: str, vocabulary: int) -> int:
    digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return 1 + int.from_bytes(digest, "little") % (vocabulary - 1)


def _pretrained(name: str) -> Any:
    """A tokeniser of Hugging Face, loaded once per process."""
    with _one_at_a_time:  # transformers cannot be imported by two threads at once either
        return _loaded(name)


@functools.lru_cache(maxsize=8)
def _loaded(name: str) -> Any:
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        there = importlib.util.find_spec("transformers") is not None
        raise ImportError(
            f"tokenizer={name!r} needs the package transformers, which is there but cannot be imported: {error}"
            if there
            else f"tokenizer={name!r} needs the package transformers: pip install 'counterpoise[text]'; "
            "tokenizer='words' needs nothing."
        ) from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except Exception as error:
        raise OSError(
            f"tokenizer={name!r} is neither a folder with a tokeniser nor one that could be fetched from the hub. "
            "Without a network, give the path of a folder saved with `save_pretrained`, or tokenizer='words'."
        ) from error
    if tokenizer.pad_token_id is None:
        raise ValueError(f"tokenizer={name!r} has no padding token; choose one that has (as BERT, RoBERTa and CLIP).")
    return tokenizer
