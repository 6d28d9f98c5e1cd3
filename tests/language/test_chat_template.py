"""Arguments and date of a chat template: written into it, once, for every reader of it."""

from __future__ import annotations

from datetime import date, datetime

import pytest
from tests.language.families import DATED, TEMPLATES, byte_level
from transformers import AutoTokenizer

from taiji.core.errors import ConfigError
from taiji.language.causal_lm import LanguageModel, load_configured, load_tokenizer
from taiji.language.chat import render
from taiji.language.chat_template import bind_template
from taiji.language.settings import LanguageSettings
from taiji.language.tiny import CHAT_TEMPLATE, tiny_causal_lm

MESSAGES = [{"role": "user", "content": "Hello"}]
LLAMA = (
    "{{- bos_token }}\n{%- if not date_string is defined %}\n    {%- if strftime_now is defined %}\n"
    '        {%- set date_string = strftime_now("%d %b %Y") %}\n    {%- else %}\n        {%- set date_string = "26 Jul 2024" %}\n'
    '    {%- endif %}\n{%- endif %}\n{{- "Today Date: " + date_string + "\\n\\n" }}\n' + CHAT_TEMPLATE
)


def tokenizer_of(template):
    tokenizer = byte_level()
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize("template", [DATED + CHAT_TEMPLATE, LLAMA], ids=["today", "as Llama 3.1"])
def test_a_date_is_one_for_all_days(template, monkeypatch):
    tokenizer = tokenizer_of(template)
    today = f"{datetime.now():%d %b %Y}"
    assert today in render(tokenizer, MESSAGES)  # without a setting a prompt would be another one tomorrow
    bind_template(tokenizer, {}, None)
    once = render(tokenizer, MESSAGES)
    assert "26 Jul 2024" in once and today not in once
    bind_template(tokenizer, {}, date(2026, 3, 4))
    assert render(tokenizer, MESSAGES) == once.replace("26 Jul 2024", "04 Mar 2026")
    bind_template(tokenizer, {}, None)  # as a model's folder is read again: its own date stays
    assert "04 Mar 2026" in render(tokenizer, MESSAGES)


def test_a_date_that_a_template_keeps_is_set_too():
    kept = '{% if not date_string is defined %}{% set date_string = "26 Jul 2024" %}{% endif %}{{ date_string }}|'
    tokenizer = tokenizer_of(kept + CHAT_TEMPLATE)
    bind_template(tokenizer, {}, None)
    assert render(tokenizer, MESSAGES).startswith("26 Jul 2024|")
    bind_template(tokenizer, {}, date(2026, 3, 4))
    assert render(tokenizer, MESSAGES).startswith("04 Mar 2026|")


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, None], ids=["another template", "none"])
def test_a_date_that_nothing_prints_is_an_error(template):
    with pytest.raises(ConfigError, match="prints no date"):
        bind_template(tokenizer_of(template), {}, date(2026, 3, 4))


@pytest.mark.parametrize("form", ["%d %b %Y", "%Y-%m-%d", "%B %d, %Y", "%A, %-d %B %y", "%a %e %j", "%F"])
def test_the_forms_of_dates(form):
    tokenizer = tokenizer_of(f"{{{{ strftime_now('{form}') }}}}|{CHAT_TEMPLATE}")
    day = date(2026, 3, 4)
    bind_template(tokenizer, {}, day)
    assert render(tokenizer, MESSAGES).split("|<")[0] == day.strftime(form)


@pytest.mark.parametrize(
    "template", [text for text in TEMPLATES.values() if text], ids=[n for n, t in TEMPLATES.items() if t]
)
@pytest.mark.parametrize(
    "lead", ["", "\n", "  ", "\n\n  {% if true %}{% endif %}"], ids=["nothing", "line", "spaces", "block"]
)
def test_what_a_template_says_besides_is_the_same(template, lead):
    plain, bound = tokenizer_of(lead + template), tokenizer_of(lead + template + "{# unused #}")
    bind_template(bound, {"unused": 1}, datetime.now().date() if "strftime_now" in template else None)
    assert bound.chat_template != plain.chat_template
    assert render(bound, MESSAGES) == render(plain, MESSAGES)


@pytest.mark.parametrize(
    "value",
    [True, False, None, 3, -2.5, "low", 'a "quoted" \\ %} }} {# 🍣 é\nline', ""],
    ids=lambda value: repr(value)[:8],
)
def test_values_arrive_as_they_are(value):
    tokenizer = tokenizer_of("{{ x is none }}|{{ x is boolean }}|{{ x }}|" + CHAT_TEMPLATE)
    bind_template(tokenizer, {"x": value}, None)
    assert render(tokenizer, MESSAGES).startswith(f"{value is None}|{isinstance(value, bool)}|{value}|<|im_start|>")


def test_thinking_is_switched_on_and_off():
    tokenizer = tokenizer_of(TEMPLATES["hybrid"])
    assert render(tokenizer, MESSAGES).endswith("<think>\n\n</think>\n\n")
    bind_template(tokenizer, {"enable_thinking": True}, None)
    assert render(tokenizer, MESSAGES).endswith("assistant\n<think>\n")
    once = tokenizer.chat_template
    bind_template(tokenizer, {"enable_thinking": True}, None)
    assert tokenizer.chat_template == once  # not written twice
    bind_template(tokenizer, {"enable_thinking": False}, None)
    assert render(tokenizer, MESSAGES).endswith("</think>\n\n") and len(tokenizer.chat_template) < len(once) + 2


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, None], ids=["another template", "none"])
def test_an_argument_that_nothing_reads_is_an_error(template):
    with pytest.raises(ConfigError, match="does not use this argument") as error:
        bind_template(tokenizer_of(template), {"enable_thinkng": True}, None)
    assert "language.chat_template_kwargs.enable_thinkng" in str(error.value)
    with pytest.raises(ConfigError, match="is set by transformers or by taiji"):
        bind_template(tokenizer_of(CHAT_TEMPLATE), {"messages": "x"}, None)


def test_a_saved_model_says_the_same_to_whoever_serves_it(tmp_path):
    tokenizer = tokenizer_of(LLAMA + "{{ enable_thinking }}")
    model, _ = tiny_causal_lm(tokenizer, hidden=8, layers=1, heads=2)
    LanguageModel(model, tokenizer, "tiny").save(tmp_path / "start")
    settings = LanguageSettings(
        model=str(tmp_path / "start"),
        dtype="float32",
        device="cpu",
        chat_template_kwargs={"enable_thinking": True},
        template_date=date(2026, 3, 4),
    )
    lm = load_configured(settings)
    lm.save(tmp_path / "tuned")
    said = render(lm, MESSAGES)
    assert "04 Mar 2026" in said and said.endswith("True")
    elsewhere = AutoTokenizer.from_pretrained(tmp_path / "tuned")  # as vLLM or TRL read it, without our settings
    assert elsewhere.apply_chat_template(MESSAGES, add_generation_prompt=True, tokenize=False) == said
    again = load_configured(settings, tmp_path / "tuned")
    assert render(again, MESSAGES) == said and again.version == lm.version
    assert render(load_tokenizer(settings), MESSAGES) == said
    other = load_configured(settings.model_copy(update={"template_date": date(2026, 3, 5)}))
    assert other.version != lm.version


def test_names_are_names_and_values_are_plain():
    for wrong in ({"a b": 1}, {"x}": 1}, {"x": [1]}, {"x": {"y": 1}}):
        with pytest.raises(ValueError):
            LanguageSettings(chat_template_kwargs=wrong)
