"""Tokenizers and chat templates with the habits of known model families, small enough to be made for each test."""

from __future__ import annotations

import json
from collections.abc import Callable

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from taiji.language.tiny import CHAT_TEMPLATE, CORPUS

BOS, EOS, PAD = "<|begin|>", "<|im_end|>", "<|pad|>"
TURNS = ("<|im_start|>", EOS)
TEXTS = (
    *CORPUS,
    '<think>"Milk" first</think><answer>Item title: oat milk</answer>',
    "assistant\n<think>\nThe list",
    "Be brief. Hello, what next?",
    "26 Jul 2024",
) * 4
LONE = "{% if messages|length > 1 %}{{ raise_exception('one message only') }}{% endif %}"


def byte_level(split: bool = True) -> PreTrainedTokenizerFast:
    """Byte-level BPE; without ``split`` tokens grow over words, tags and line breaks alike."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=600, special_tokens=[PAD, BOS, *TURNS], initial_alphabet=alphabet, show_progress=False
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD)


def framed(before: str = "", after: str = "") -> PreTrainedTokenizerFast:
    """One that adds special tokens to every text by itself."""
    fast = byte_level()
    special = [(token, fast.convert_tokens_to_ids(token)) for token in (before, after) if token]
    fast._tokenizer.post_processor = processors.TemplateProcessing(
        single=" ".join(part for part in (before, "$A", after) if part), special_tokens=special
    )
    return fast


def sentencepiece(scheme: str) -> PreTrainedTokenizerFast:
    """Llama 2's: spaces as ▁, unknown characters as bytes, a ▁ before the first text or before every one."""
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    special = ["<unk>", BOS, *TURNS]
    trained.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False))
    learnt = json.loads(trained.to_str())["model"]
    pieces = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *(p for p in learnt["vocab"] if p not in special)]
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in learnt["merges"]]
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.add_special_tokens(special)
    tokenizer.pre_tokenizer = trained.pre_tokenizer
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token=BOS, eos_token=EOS, pad_token="<unk>"
    )


def legacy() -> PreTrainedTokenizerFast:
    """A normaliser that puts ▁ before every text, and after every special token in it."""
    fast = sentencepiece("first")
    fast._tokenizer.pre_tokenizer = None
    fast._tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return fast


def with_tags(special: bool) -> PreTrainedTokenizerFast:
    """One whose tags of thinking are tokens of their own, as those of reasoning models."""
    fast = byte_level()
    tags = [AddedToken(tag, special=special, normalized=False) for tag in ("<think>", "</think>")]
    fast.add_tokens(tags, special_tokens=special)
    return fast


def without(*names: str) -> PreTrainedTokenizerFast:
    """One that has no such tokens."""
    fast = byte_level()
    for name in names:
        setattr(fast, name, None)
    return fast


def pad_is_end() -> PreTrainedTokenizerFast:
    """One that pads with its end-of-text token."""
    fast = byte_level()
    fast.pad_token = EOS
    return fast


TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "adds nothing": byte_level,
    "adds BOS": lambda: framed(BOS),
    "adds EOS": lambda: framed("", EOS),
    "adds both": lambda: framed(BOS, EOS),
    "merges over everything": lambda: byte_level(split=False),
    "spaces before the first": lambda: sentencepiece("first"),
    "spaces before all": lambda: sentencepiece("always"),
    "spaces before all, by its normaliser": legacy,
    "tags are tokens": lambda: with_tags(False),
    "tags are special tokens": lambda: with_tags(True),
    "pads with EOS": pad_is_end,
    "no pad": lambda: without("pad_token"),
    "no BOS": lambda: without("bos_token"),
    "no EOS": lambda: without("eos_token"),
}


def ending(text: str) -> str:
    """ChatML whose generation prompt goes on with a text."""
    return CHAT_TEMPLATE.replace("assistant\n{% endif", f"assistant\n{text}{{% endif")


DATED = "{% if strftime_now is defined %}{% set today = strftime_now('%d %b %Y') %}{% else %}{% set today = 'never' %}{% endif %}Today: {{ today }}\n"
TEMPLATES: dict[str, str | None] = {
    "plain": CHAT_TEMPLATE,
    "writes BOS": "{{ bos_token }}" + CHAT_TEMPLATE,
    "prints the date": DATED + CHAT_TEMPLATE,
    "BOS and date": "{{- bos_token }}" + DATED + CHAT_TEMPLATE,
    "opens think": ending("<think>\n"),
    "closes an empty think": ending("<think>\n\n</think>\n\n"),
    "hybrid": ending(
        "{% if enable_thinking is defined and enable_thinking %}<think>\n{% else %}<think>\n\n</think>\n\n{% endif %}"
    ),
    "forbids system": "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    + CHAT_TEMPLATE,
    "forgets system": CHAT_TEMPLATE.replace("in messages %}", "in messages if message['role'] != 'system' %}"),
    "folds system": "{% set first = messages[0]['content'] if messages[0]['role'] == 'system' else '' %}"
    "{% for message in messages if message['role'] != 'system' %}<|im_start|>user\n{{ first }} {{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "lists of parts": CHAT_TEMPLATE.replace(
        "{{ message['content'] }}", "{% for part in message['content'] %}{{ part['text'] }}{% endfor %}"
    ),
    "strips contents": CHAT_TEMPLATE.replace("message['content']", "message['content'] | trim"),
    "ends with a space": ending(" "),
    "no line break": CHAT_TEMPLATE.replace("assistant\n{% endif", "assistant:{% endif"),
    "none": None,
}
