"""Write the arguments and the date of a chat template into the template itself.

Prompts are then the same wherever the template is read: here, in TRL, in vLLM, and in the folder of a fine-tuned model
that is served elsewhere. A template that prints today's date gives different token ids every day, and the model was not
trained on them. The date is therefore fixed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING

from taiji.core.errors import ConfigError
from taiji.language.settings import TemplateValue

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CLOCK = "strftime_now"
"""Function that templates call for today's date."""
FIXED = "date_string"
"""Variable with the date in Llama's templates. Some of them set it to a fixed date and never call the clock."""
DEFAULT_DATE = date(2024, 7, 26)
"""Date that is printed by default. It is also the fallback in the templates of Llama 3.1 and 3.2."""
_HEADER = re.compile(r"\A\{# set by taiji: #\}\n(.*?)\{# end #\}\n", re.DOTALL)
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
RESERVED = ("messages", "add_generation_prompt", "continue_final_message", "tools", "documents", CLOCK)
"""Template variables that cannot be set by ``chat_template_kwargs``."""


def bind_template(
    tokenizer: PreTrainedTokenizerBase, arguments: Mapping[str, TemplateValue], today: date | None
) -> None:
    """Set the template arguments and the date in the chat template of a tokenizer.

    Args:
        tokenizer: tokenizer that is changed in place: its ``chat_template`` then begins with the assignments.
        arguments: values by name (``chat_template_kwargs`` of transformers).
        today: date that the template prints. With None, a date that was written into the template before is kept. If
            there is none and the template would print today's date, it prints :data:`DEFAULT_DATE` instead.

    Raises:
        ConfigError: an argument is reserved or not used by the template, or a date is given and the template prints
            none. A missing template uses no argument and prints no date.
    """
    given = tokenizer.chat_template
    templates = given if isinstance(given, dict) else {"default": given} if given else {}
    for name in arguments:
        _check(name, templates)
    if today is not None and not any(prints_date(text) for text in templates.values()):
        raise ConfigError(
            "The model's chat template prints no date.",
            where="language.template_date",
            expected=f"a template that reads {CLOCK} or {FIXED}",
            found="a template that reads neither" if templates else "a model without a chat template",
            fix="set language.template_date to null",
        )
    bound = {key: _bound(text, arguments, today) for key, text in templates.items()}
    if bound:
        tokenizer.chat_template = bound if isinstance(given, dict) else bound["default"]  # type: ignore[assignment]


def prints_date(template: str) -> bool:
    """Return True if a template prints a date, whether today's or a fixed one."""
    return CLOCK in template or FIXED in template


def _check(name: str, templates: Mapping[str, str]) -> None:
    if name in RESERVED:
        raise ConfigError(
            "This variable of the chat template is set by transformers or by taiji.",
            where=f"language.chat_template_kwargs.{name}",
            expected=f"a variable other than {', '.join(RESERVED)}",
            fix="remove the argument",
        )
    if not any(re.search(rf"\b{re.escape(name)}\b", text) for text in templates.values()):
        raise ConfigError(
            "The model's chat template does not use this argument.",
            where=f"language.chat_template_kwargs.{name}",
            expected="a variable of the template, such as enable_thinking in hybrid models",
            found="a template without this variable" if templates else "a model without a chat template",
            fix="remove the argument; `taiji doctor CONFIG` shows how a prompt ends",
        )


def _bound(template: str, arguments: Mapping[str, TemplateValue], today: date | None) -> str:
    earlier = _HEADER.match(template)
    own = template[earlier.end() :] if earlier else template
    lines = {line.split()[2].split("(")[0]: line for line in earlier.group(1).splitlines()} if earlier else {}
    lines |= {name: f"{{% set {name} = {_literal(value)} %}}" for name, value in arguments.items()}
    if CLOCK in own and (today is not None or CLOCK not in lines):
        lines[CLOCK] = _clock(today or DEFAULT_DATE)
    elif FIXED in own and today is not None and FIXED not in arguments:
        said = f"{today.day:02d} {MONTHS[today.month - 1][:3]} {today.year}"
        lines[FIXED] = f"{{% set {FIXED} = {_literal(said)} %}}"
    # transformers renders templates with Jinja's trim_blocks: the line break after a block or comment is not printed.
    header = "".join(f"{lines[name]}\n" for name in sorted(lines))
    return f"{{# set by taiji: #}}\n{header}{{# end #}}\n{own}" if lines else own


def _literal(value: TemplateValue) -> str:
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def _clock(today: date) -> str:
    """Return a Jinja macro that replaces ``strftime_now``, with English names of days and months in any locale."""
    days = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
    month, day = MONTHS[today.month - 1], days[today.weekday()]
    parts = {
        "%-d": str(today.day),
        "%e": f"{today.day:2d}",
        "%d": f"{today.day:02d}",
        "%-m": str(today.month),
        "%m": f"{today.month:02d}",
        "%B": month,
        "%b": month[:3],
        "%A": day,
        "%a": day[:3],
        "%Y": str(today.year),
        "%y": f"{today.year % 100:02d}",
        "%j": f"{today.timetuple().tm_yday:03d}",
        "%F": today.isoformat(),
        "%H": "00",
        "%I": "12",
        "%M": "00",
        "%S": "00",
        "%p": "AM",
    }
    said = "".join(f".replace({json.dumps(key)}, {json.dumps(value)})" for key, value in parts.items())
    return f"{{% macro {CLOCK}(format) %}}{{{{ format{said} }}}}{{% endmacro %}}"
