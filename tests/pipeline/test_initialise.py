"""`taiji init` as a person and as a script meets it; what it writes is read by the other commands."""

from __future__ import annotations

import json
import re
import shlex

import numpy as np
import polars as pl
import pytest
import yaml
from tests.data.discovery import exports

from taiji.config import load_config
from taiji.core.errors import TaijiError
from taiji.data import Dataset, load_source
from taiji.pipeline.initial_summary import as_json, initialised_text
from taiji.pipeline.initialise import initialise


@pytest.fixture
def export(tmp_path):
    def make(name):
        folder = tmp_path / "export"
        folder.mkdir(exist_ok=True)
        getattr(exports, name)(folder)
        return folder

    return make


@pytest.mark.parametrize("name", ["german", "chinese", "events_only", "joined", "ratings"])
def test_what_is_written_reads_back_and_says_why(export, tmp_path, name, capsys):
    made = initialise(export(name), tmp_path, "shop", {})
    mapping, config = made.files
    settings = load_config(config)
    again = Dataset.from_tables(load_source(settings.data.source, settings.data.mapping))
    assert again.events.equals(made.dataset.events)
    assert "# sure:" in mapping.read_text() and "preset: demo" in config.read_text()
    assert len(made.prompts) == 3
    shown = initialised_text(made)
    assert capsys.readouterr().out == ""
    assert all(
        word in shown
        for word in ("FILES", "MAPPING", "TABLES", "PROMPT 3", f"next: taiji run {config}", f"taiji oracle {config}")
    )
    json.dumps(as_json(made), allow_nan=False)


def test_empty_ids_are_not_repeated_ids(tmp_path):
    folder = tmp_path / "tienda"
    folder.mkdir()
    rng = np.random.default_rng(0)
    pl.DataFrame(
        {
            "articulo": [f"A{i}" for i in range(40)] + [None, None],
            "titulo": [f"Papel {i}" for i in range(42)],
            "categorias": [[["Oficina", "Papel"], ["Hogar"]]] * 40 + [[], None],
        }
    ).write_parquet(folder / "catalogo.parquet")
    pl.DataFrame(
        {
            "cliente": [f"C{i}" for i in rng.integers(0, 30, 600)],
            "articulo": [f"A{i}" for i in rng.integers(0, 40, 600)],
            "fecha_hora": pl.Series(np.sort(rng.integers(1_600_000_000, 1_640_000_000, 600)) * 1000).cast(
                pl.Datetime("ms")
            ),
            "tipo_evento": rng.choice(["vista", "compra"], 600),
        }
    ).write_parquet(folder / "movimientos.parquet")
    made = initialise(folder, tmp_path, "tienda", {})
    assert made.proposal is not None and "items.one_per_id" not in made.proposal.guesses
    assert {made.proposal.guesses[f"events.{key}"].value for key in ("click", "conversion")} == {
        1,
        "tipo_evento == compra",
    }
    assert made.dataset.items["category_l1"].to_list() == ["Oficina"] * 40
    assert made.dataset.items["category_l2"].to_list() == ["Papel"] * 40


def test_the_numbers_of_a_german_export_arrive(export, tmp_path):
    items = initialise(export("german"), tmp_path, "shop", {}).dataset.items
    assert items.select("item_id", "title", "category_l1", "price").row(7) == ("00007", "mint Ding 7", "Gruppe 3", 2.2)


def test_a_joined_table_gives_each_item_and_user_once(export, tmp_path):
    dataset = initialise(export("joined"), tmp_path, "shop", {}).dataset
    assert (dataset.n_items, dataset.n_users, len(dataset.events)) == (exports.ITEMS, exports.USERS, exports.EVENTS)
    assert set(dataset.users["city"]) == {f"town{i}" for i in range(7)}


def test_dropped_rows_are_noted(export, tmp_path):
    dataset = initialise(export("ratings"), tmp_path, "shop", {}).dataset
    assert sum("dropped" in note for note in dataset.notes) == 3


def test_open_questions_are_one_message_and_nothing_is_written(export, tmp_path):
    with pytest.raises(TaijiError, match=r"(?s)events\.user_id.*events\.item_id.*--set events\.user_id=COLUMN"):
        initialise(export("nameless"), tmp_path, "shop", {})
    assert not list(tmp_path.glob("*.yaml"))


def test_a_person_is_asked_instead(export, tmp_path):
    asked = []

    def ask(question):
        asked.append(question.key)
        return {"events.user_id": "a", "events.item_id": "b"}[question.key]

    made = initialise(export("nameless"), tmp_path, "shop", {}, ask)
    assert asked == ["events.user_id", "events.item_id"]
    assert made.dataset.n_users == exports.USERS


def test_files_in_the_way_are_kept_unless_forced(export, tmp_path):
    folder = export("chinese")
    initialise(folder, tmp_path, "shop", {})
    with pytest.raises(TaijiError, match="--force"):
        initialise(folder, tmp_path, "shop", {})
    initialise(folder, tmp_path, "shop", {}, force=True)


def test_a_refuted_proposal_is_kept_to_be_corrected(export, tmp_path):
    folder = export("german")
    items = (folder / "artikel.csv").read_text()
    (folder / "artikel.csv").write_text(items + items.splitlines()[-1] + "\n")
    made = initialise(folder, tmp_path, "one", {})  # one id twice: the first row counts, and that is said
    assert made.proposal is not None and made.proposal.guesses["items.one_per_id"].value is True
    with pytest.raises(TaijiError, match="correct it there"):
        initialise(folder, tmp_path, "two", {"events.click": "Menge"})
    assert yaml.safe_load((tmp_path / "two-mapping.yaml").read_text())["events"]["click"] == "Menge"
    works = (tmp_path / "one-mapping.yaml").read_text()
    with pytest.raises(TaijiError, match=r"one-mapping\.proposed\.yaml"):
        initialise(folder, tmp_path, "one", {"events.click": "Menge"}, force=True)
    assert (tmp_path / "one-mapping.yaml").read_text() == works, "a mapping that can be read is not lost"
    initialise(folder, tmp_path, "one", {}, force=True)
    assert not (tmp_path / "one-mapping.proposed.yaml").exists()


def test_a_thin_log_lowers_what_prompts_need(tmp_path):
    lines = [f"u{i % 20},item{i % 7},{1_680_000_000 + i * 1000}" for i in range(90)]
    (tmp_path / "log.csv").write_text("user,item,time\n" + "\n".join(lines))
    made = initialise(tmp_path, tmp_path, "thin", {})
    assert load_config(made.files[-1]).examples.min_history < 5
    assert any("thin" in doubt or "SMALL" in doubt for doubt in made.doubts)


def test_a_known_layout_needs_no_mapping(tmp_path):
    (tmp_path / "u.data").write_text(
        "".join(f"{1 + i % 9}\t{1 + i % 11}\t{1 + i % 5}\t{880_000_000 + i}\n" for i in range(300))
    )
    (tmp_path / "u.item").write_bytes(
        "".join(
            f"{i}|Film {i} (1990)|01-Jan-1990||x|" + "|".join(["0"] * 18 + ["1"]) + "\n" for i in range(1, 12)
        ).encode("latin-1")
    )
    made = initialise(tmp_path, tmp_path, "films", {})
    assert made.proposal is None and made.files == [tmp_path / "films.yaml"]
    assert initialised_text(made).startswith("LAYOUT\n  MovieLens: known") and as_json(made)["layout"] == "MovieLens"
    assert load_config(made.files[0]).data.mapping is None


@pytest.mark.parametrize(("every", "word"), [(10, "90.0% OF THE EXPOSURES ARE CLICKS"), (2, None), (1, "ONLY 0.00%")])
def test_a_log_of_hardly_anything_but_clicks_or_exposures_is_remarked_on(tmp_path, every, word):
    lines = [f"u{i % 20},item{i % 7},{1_680_000_000 + i * 1000},{int(i % every > 0)}" for i in range(400)]
    (tmp_path / "log.csv").write_text("user,item,time,clicked\n" + "\n".join(lines))
    doubts = [doubt for doubt in initialise(tmp_path, tmp_path, "rate", {}).doubts if "EXPOSURES ARE CLICKS" in doubt]
    assert len(doubts) == (word is not None) and all(word in doubt for doubt in doubts)
    if every == 10:
        assert "--set events.non_clicks=4" in doubts[0]
        made = initialise(tmp_path, tmp_path, "rate", {"events.non_clicks": "4"}, force=True)
        assert not any("EXPOSURES ARE CLICKS" in doubt for doubt in made.doubts)


def test_what_the_user_decided_is_neither_announced_otherwise_nor_called_unused(tmp_path):
    folder = tmp_path / "export"
    folder.mkdir()
    lines = [f"u{n % 23},i{n * 7 % 40},{1_690_000_000 + n * 5000},{'like' if n % 3 else 'skip'}" for n in range(600)]
    (folder / "log.csv").write_text("\n".join(["user_id,item_id,timestamp,did", *lines]))
    users = [f"u{n},{'mf'[n % 2]},{('Rome', 'Oslo', 'Bonn')[n % 3]}" for n in range(23)]
    (folder / "users.csv").write_text("\n".join(["user_id,gender,city", *users]))
    decided = {"events.click": "did == like", "users.profile": "null"}
    shown = initialised_text(initialise(folder, tmp_path, "shop", decided))
    assert "did == like" in shown and "did" not in "".join(line for line in shown.splitlines() if "not used" in line)
    assert "Prompts will show" not in shown
    assert "gender, city" in initialised_text(
        initialise(folder, tmp_path, "shop", {"events.click": "did == like"}, force=True)
    )


def test_the_next_command_goes_on_with_a_run_of_that_name(export, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = initialise(export("german"), tmp_path, "shop", {})
    assert made.command == f"taiji run {tmp_path / 'shop.yaml'}"
    (tmp_path / "runs" / "shop").mkdir(parents=True)
    (tmp_path / "runs" / "shop" / "config.json").write_text("{}")
    assert made.command.endswith("shop.yaml"), "no stage is finished: nothing to go on with"
    (tmp_path / "runs" / "shop" / "data").mkdir()
    (tmp_path / "runs" / "shop" / "data" / "manifest.json").write_text("{}")
    assert made.command.endswith("shop.yaml --resume")


@pytest.mark.parametrize("name", ["a b/../c", "/tmp/x", "..", "", "a\nb"])
def test_a_name_that_no_run_can_have_is_refused_before_anything_is_written(export, tmp_path, name):
    folder = export("chinese")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(TaijiError, match="not a valid name of a run"):
        initialise(folder, tmp_path, name, {})
    assert sorted(tmp_path.rglob("*")) == before


def test_a_domain_without_templates_is_a_doubt_and_shows_no_prompts(export, tmp_path):
    made = initialise(export("chinese"), tmp_path, "cars", {"domain": "cars"})
    assert made.prompts == [] and any("domain cars" in doubt and "books, films, shop" in doubt for doubt in made.doubts)
    assert made.dataset.domain == "cars"


def test_the_next_command_can_be_pasted(export, tmp_path):
    made = initialise(export("chinese"), tmp_path / "my runs", "a shop", {})
    assert shlex.split(made.command) == ["taiji", "run", str(tmp_path / "my runs" / "a shop.yaml")]


def test_repeated_and_differently_spelt_ids_keep_their_titles_and_are_reported(export, tmp_path):
    folder = export("german")
    items = (folder / "artikel.csv").read_text().splitlines()
    (folder / "artikel.csv").write_text("\n".join([*items, *items[-9:]]) + "\n")
    log = (folder / "verlauf.csv").read_text()
    (folder / "verlauf.csv").write_text(re.sub(r";0+(\d+);", r";\1;", log))
    made = initialise(folder, tmp_path, "shop", {})
    assert made.dataset.n_items == exports.ITEMS
    assert made.dataset.items["title"][7] == "mint Ding 7"
    shown = initialised_text(made)
    assert "9 rows that repeat an earlier one" in shown and "'0' for '00000'" in shown
    assert "READING" in shown and "Ids" in shown
    assert as_json(made)["reading"]["files"][0]["file"] == "artikel.csv"


def test_a_file_can_be_left_out(export, tmp_path):
    folder = export("german")
    (folder / "alt.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TaijiError, match=r"--ignore alt\.csv"):
        initialise(folder, tmp_path, "shop", {})
    made = initialise(folder, tmp_path, "shop", {}, ignore=["alt*"])
    assert any("alt.csv" in doubt for doubt in made.doubts)


def test_what_gives_answers_away_is_told_to_nobody(export, tmp_path):
    folder = export("german")
    lines = (folder / "kunden.csv").read_text().splitlines()
    rows = [f"{line};{k % 80:05d};k{k}@mail.example" for k, line in enumerate(lines[1:])]
    (folder / "kunden.csv").write_text("\n".join([lines[0] + ";naechster_artikel;kontakt", *rows]) + "\n")
    made = initialise(folder, tmp_path, "shop", {})
    assert made.dataset.users.columns == ["user", "user_id", "Geschlecht"]
    assert any("naechster_artikel" in doubt and "kontakt" in doubt for doubt in made.doubts)
    assert any("have no timestamp" in doubt for doubt in made.doubts)
    assert not any("mail.example" in prompt for prompt in made.prompts)


def test_targets_beside_the_log_play_no_part(export, tmp_path):
    folder = export("german")
    (folder / "kunden.csv").unlink()
    (folder / "test_buy.csv").write_text(
        "KundenNr;ArtikelNr\n" + "".join(f"{1000 + k};{k:05d}\n" for k in range(exports.USERS))
    )
    made = initialise(folder, tmp_path, "shop", {})
    assert made.dataset.users.columns == ["user", "user_id"]
    assert "test_buy.csv: 60 rows -> not used" in initialised_text(made)


@pytest.mark.parametrize(
    "first", [98_765_432_109_876_543_210, 9_007_199_254_740_993], ids=["20 digits", "beyond floats"]
)
def test_large_ids_are_ids_and_keep_their_digits(tmp_path, first):
    who, what, at, _ = exports.log()
    rows = zip(who.tolist(), what.tolist(), at.tolist())
    (tmp_path / "log.csv").write_text("user_id,item_id,time\n" + "".join(f"{u},{first + i},{t}\n" for u, i, t in rows))
    items = "".join(f"{first + i},Green thing {i}\n" for i in range(exports.ITEMS))
    (tmp_path / "items.csv").write_text("item_id,title\n" + items)
    dataset = initialise(tmp_path, tmp_path, "large", {}).dataset
    assert dataset.items.select("item_id", "title").row(7) == (str(first + 7), "Green thing 7")
    assert sorted(dataset.events.filter(pl.col("click") == 1)["item"].to_list()) == sorted(what.tolist())


def test_atomic_files_of_recbole(tmp_path):
    who, what, at, rng = exports.log()
    log = zip(who.tolist(), what.tolist(), rng.integers(1, 6, exports.EVENTS).tolist(), at.tolist())
    head = "user_id:token\titem_id:token\trating:float\ttimestamp:token\n"
    (tmp_path / "ml.inter").write_text(head + "".join("\t".join(map(str, row)) + "\n" for row in log))
    items = "".join(f"{i}\tGreen thing {i}\t{'Tea Hot' if i % 2 else 'Bread'}\n" for i in range(exports.ITEMS))
    (tmp_path / "ml.item").write_text("item_id:token\tmovie_title:token_seq\tclass:token_seq\n" + items)
    dataset = initialise(tmp_path, tmp_path, "ml", {}).dataset
    shown = dataset.items.select("item_id", "title", "category_l1", "category_l2").row(7)
    assert shown == ("7", "Green thing 7", "Tea", "Hot")
    assert dataset.events.filter(pl.col("click") == 1).height == exports.EVENTS


def test_a_table_whose_ids_are_spelt_differently_is_reported_with_counts(export, tmp_path):
    folder = export("german")
    text = (folder / "artikel.csv").read_text()
    (folder / "artikel.csv").write_text(re.sub(r"^(\d+);", r"Art.\1;", text, flags=re.M))
    log = (folder / "verlauf.csv").read_text()
    (folder / "verlauf.csv").write_text(re.sub(r";(0\d{4});", r";ART-\1;", log))
    doubts = initialise(folder, tmp_path, "shop", {}).doubts
    said = next(doubt for doubt in doubts if doubt.startswith("artikel.csv is not used"))
    assert "of the 80 distinct values of ArtikelNr in verlauf.csv, 0 occur in its Artikelnummer" in said
    assert "80 differ only in spelling ('ART-00000' and 'Art.00000'" in said


def test_skipped_folders_are_listed_if_the_log_is_missing(export, tmp_path):
    folder = export("german")
    (folder / "log").mkdir()
    (folder / "verlauf.csv").rename(folder / "log" / "a.csv")
    (folder / "log" / "b.csv").write_text("x;y\n1;2\n")
    with pytest.raises(TaijiError, match=r"(?s)No file looks like a log.*The folder log was skipped"):
        initialise(folder, tmp_path, "shop", {})


def test_a_second_log_is_spoken_of(export, tmp_path):
    folder = export("german")
    head, *rows = (folder / "verlauf.csv").read_text().splitlines()
    (folder / "neuere.csv").write_text("\n".join([head, *rows[-200:]]) + "\n")
    doubts = initialise(folder, tmp_path, "shop", {"events.file": "verlauf.csv"}).doubts
    assert any(doubt.startswith("neuere.csv has the same columns as verlauf.csv") for doubt in doubts)
