"""Texts about items: prompts of the catalogue alone, both writers, the guard, times and cost."""

from dataclasses import replace

import polars as pl
import pytest
from tests.reasoning.conftest import build
from tests.reasoning.misbehaving import KEY, Server

from taiji.core.errors import ConfigError, InputError
from taiji.data.knowledge_rows import SCHEMA, listed_at
from taiji.language.generate import Written
from taiji.language.token_ids import ids_of
from taiji.reasoning import item_knowledge
from taiji.reasoning.endpoint import EndpointClient
from taiji.reasoning.item_knowledge import (
    EndpointItemWriter,
    LocalItemWriter,
    Said,
    asked_once,
    check_usable,
    for_all,
    item_prompt,
    items_to_ask,
    knowledge_metrics,
    with_times,
    write_knowledge,
)
from taiji.reasoning.knowledge_settings import ItemKnowledgeSettings
from taiji.reasoning.prompts import domains, item_line
from taiji.reasoning.settings import EndpointSettings, PromptSettings

PROMPTS = PromptSettings()


class Plain:
    """Says a number of sentences of the item's own words."""

    version = "plain"

    def __init__(self, texts=()):
        self.texts, self.asked = list(texts), []

    def write(self, prompts, seed):
        self.asked += prompts
        texts = self.texts or ["For the garden."] * len(prompts)
        return [Said(text, "whole" if text else "cut", 7, 3) for text in texts]


@pytest.mark.parametrize("domain", domains(None, "item"))
def test_a_prompt_tells_the_fields_of_the_catalogue(domain):
    shop = build(domain)
    prompt = item_prompt(shop, 7, PROMPTS)
    told = " ".join(message["content"] for message in prompt.messages)
    assert "item7word thing7" in told and "price: 8.0" in told and prompt.prefill
    assert "price" not in " ".join(m["content"].partition("\n")[2] for m in item_prompt(shop, 4, PROMPTS).messages)[:40]


def test_a_long_description_is_shown_as_far_as_the_prompts_may():
    shop = build()
    shop = replace(shop, items=shop.items.with_columns(description=pl.lit("word " * 100)))
    for asked, words in ((0, 24), (50, 24), (300, 60)):
        prompt = item_prompt(shop, 0, PromptSettings(description_characters=asked))
        assert prompt.messages[-1]["content"].count("word") - item_line(shop, 0).count("word") == words


def test_every_domain_has_the_template():
    assert domains(None, "item") == domains(None, "student")


def test_templates_can_be_replaced(tmp_path):
    (tmp_path / "item.j2").write_text("[user]\nSay it: {{ line }} {{ nothing }}\n")
    with pytest.raises(ConfigError, match="template is invalid"):
        item_prompt(build(), 0, PromptSettings(templates=tmp_path))
    (tmp_path / "item.j2").write_text("[user]\nSay it: {{ line }}\n")
    assert item_prompt(build(), 0, PromptSettings(templates=tmp_path)).messages[0]["content"].startswith("Say it: Item")


def test_the_local_writer_keeps_whole_sentences(lm, monkeypatch):
    shop = build()
    writer = LocalItemWriter(lm, ItemKnowledgeSettings())
    prompts = [item_prompt(shop, item, PROMPTS) for item in range(4)]
    said = [
        Written("cook. In summer they", True),
        Written("cook in sum", True),
        Written("cook.", False),
        Written(":", False),
    ]
    monkeypatch.setattr(item_knowledge, "write", lambda *given, **more: [[one] for one in said])
    found = writer.write(prompts, 0)
    assert [one.text for one in found] == ["People use it to cook.", "", "People use it to cook.", ""]
    assert [one.ended for one in found] == ["shortened", "cut", "whole", "empty"], "a prefill alone says nothing"
    assert found[2].completion_tokens == len(ids_of(lm.tokenizer, "cook.")) and found[0].prompt_tokens > 30


def test_a_tiny_model_writes_the_same_twice(lm):
    shop = build(items=5)
    writer = LocalItemWriter(lm, ItemKnowledgeSettings(max_new_tokens=8))
    items = items_to_ask(shop, ItemKnowledgeSettings(items=2), PROMPTS, writer.version)
    first, again = (write_knowledge(shop, items, writer, PROMPTS, 0) for _ in range(2))
    assert first.equals(again) and len(first) == 2 and first["completion_tokens"].max() <= 10


def test_an_endpoint_is_asked_once_per_item(tmp_path, monkeypatch):
    monkeypatch.setenv("TAIJI_TEACHER_KEY", KEY)
    shop = build(items=4)
    with Server(faults=("none",)) as server:
        settings = EndpointSettings(url=server.url, model="m", price_out=1.0, backoff_seconds=0.01)
        for _ in range(2):
            writer = EndpointItemWriter(EndpointClient(settings, 0.0, tmp_path))
            items = items_to_ask(shop, ItemKnowledgeSettings(), PROMPTS, writer.version)
            found = write_knowledge(shop, items, writer, PROMPTS, 0)
        assert len(server.billed) == 4 == len(found)
        assert sum(out for _, out in server.billed.values()) == found["completion_tokens"].sum()
    assert all(text.startswith("Rationale for Product") for text in found["said"])


def test_items_with_the_same_prompt_are_asked_once_and_paid_once():
    shop = build(items=6)
    titles = pl.Series("title", ["Rope", "Soap", "Rope", "Lamp", "Soap", "Rope"])
    same = [
        pl.lit(None, kind).alias(name) for name, kind in shop.items.schema.items() if name not in ("item", "item_id")
    ]
    shop = replace(shop, items=shop.items.with_columns(same).with_columns(titles))
    items, writer = (
        items_to_ask(shop, ItemKnowledgeSettings(), PROMPTS, "plain"),
        Plain(["Ties.", "Washes.", "Lights."]),
    )
    table = with_times(for_all(write_knowledge(shop, asked_once(items), writer, PROMPTS, 0), items, shop), shop, 0.0)
    assert len(writer.asked) == 3
    assert table["said"].to_list() == ["Ties.", "Washes.", "Ties.", "Lights.", "Washes.", "Ties."]
    assert table["item_id"].to_list() == shop.items["item_id"].cast(pl.String).to_list()
    assert table["prompt_tokens"].to_list() == [7, 7, 0, 7, 0, 0]
    assert knowledge_metrics(table, 6)["completion_tokens"] == 3 * 3 / 6, "tokens per item count each prompt once"


def test_flagged_and_unfinished_texts_are_not_used_and_are_counted():
    shop = build(items=4)
    items = items_to_ask(shop, ItemKnowledgeSettings(), PROMPTS, "plain")
    said = ["For cooks.", "There are 77 of them.", "", "It is a Kitchen thing with 9 legs."]
    table = with_times(write_knowledge(shop, items, Plain(said), PROMPTS, 0), shop, 2.0)
    assert table["text"].to_list() == ["For cooks.", None, None, None]
    assert table["flagged"].to_list() == ["", "number", "", "number, category"]
    assert dict(table.schema) == SCHEMA and table["item_id"].to_list() == ["0", "1", "2", "3"]
    assert table["as_of"].to_list() == listed_at(shop).tolist()
    assert (table["available_at"] - table["as_of"]).unique().to_list() == [2_000_000]
    found = knowledge_metrics(table, 8)
    assert found == {
        "items": 4,
        "coverage": 1 / 8,
        "flagged": 2 / 3,
        "unfinished": 1 / 4,
        "prompt_tokens": 7,
        "completion_tokens": 3,
        "flagged_category": 1 / 3,
        "flagged_number": 2 / 3,
    }


def test_what_is_asked_depends_on_the_item_and_the_writer():
    shop, other = build(items=3), build(items=3, mark="new")
    asked = [
        items_to_ask(data, ItemKnowledgeSettings(), PROMPTS, version)["asked"]
        for data, version in ((shop, "a"), (shop, "b"), (other, "a"))
    ]
    assert pl.concat(asked).n_unique() == 9


def test_what_is_left_out_is_told_and_nothing_at_all_is_an_error(caplog):
    shop = build(items=4)
    items = items_to_ask(shop, ItemKnowledgeSettings(), PROMPTS, "plain")
    table = write_knowledge(shop, items, Plain(["For cooks.", "There are 77 of them.", "", ""]), PROMPTS, 0)
    check_usable(table)
    assert "4 items, these are not used, by reason: 2 cut, 1 number" in caplog.text
    check_usable(table[:1])
    assert len(caplog.records) == 1
    with pytest.raises(InputError, match="no usable text about any item"):
        check_usable(table[1:])
