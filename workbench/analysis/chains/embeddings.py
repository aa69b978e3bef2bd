"""Embeddings of texts, for `focus_text` and `confusion_text`; the paper names none.

The default is the model's own: the mean of its residual stream over the tokens of a text that it
reads by itself, behind a first token that is left out (it is a sink). Another is any folder of
sentence-transformers.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.analysis.readout import widen
from workbench.errors import InputError
from workbench.models.extras import extra_package
from workbench.models.hooked import HookedModel


@runtime_checkable
class Embedding(Protocol):
    """Vectors of texts.

    Attributes:
        name: what tables call it.
    """

    name: str

    def of_texts(self, texts: Sequence[str]) -> Float[Tensor, "text d"]:
        """A vector of each text."""
        ...

    def of_beginnings(self, text: str, ends: Sequence[int]) -> Float[Tensor, "beginning d"]:
        """A vector of the text's first `end` characters, for each end."""
        ...


class OwnStream:
    """A model's residual stream behind one of its layers, pooled by the mean over tokens.

    Args:
        model: with a tokenizer of the fast kind.
        layer: behind which the stream is read; the middle one unless given.

    Raises:
        InputError: no tokenizer, or no such layer.
    """

    def __init__(self, model: HookedModel, layer: int | None = None) -> None:
        n_layers = model.info.n_layers
        layer = (n_layers - 1) // 2 if layer is None else layer
        if model.tokenizer is None:
            raise InputError(f"model {model.info.name!r} has no tokenizer to embed texts with")
        if not 0 <= layer < n_layers:
            raise InputError(f"layer {layer} is not one of the model's, 0 to {n_layers - 1}")
        self.name = f"stream behind layer {layer}"
        self._model, self._tokenizer = model, model.tokenizer
        self._hook = f"blocks.{layer}.hook_resid_post"
        starts = (self._tokenizer.bos_token_id, self._tokenizer.eos_token_id, 0)
        self._start = next(token for token in starts if isinstance(token, int))

    def of_texts(self, texts: Sequence[str]) -> Float[Tensor, "text d"]:
        """See `Embedding`."""
        encoded = [self._encoded(text)[0] for text in texts]
        runs = self._model.run([[self._start, *ids] for ids in encoded], [self._hook])
        streams = [widen(run.activations[self._hook]).cpu() for run in runs]
        return torch.stack([stream[1:].mean(dim=0) for stream in streams])

    def of_beginnings(self, text: str, ends: Sequence[int]) -> Float[Tensor, "beginning d"]:
        """See `Embedding`; one forward, as the stream of a token does not depend on later ones."""
        ids, offsets = self._encoded(text)
        [run] = self._model.run([[self._start, *ids]], [self._hook])
        stream = widen(run.activations[self._hook])[1:].cpu()
        counts = torch.tensor([max(1, sum(end <= upto for end in offsets)) for upto in ends])
        return stream.cumsum(dim=0)[counts - 1] / counts[:, None]

    def _encoded(self, text: str) -> tuple[list[int], list[int]]:
        found: Any = self._tokenizer(
            text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True
        )
        if not found["input_ids"]:
            raise InputError("a text without a token cannot be embedded")
        longest = self._model.context_length
        kept = slice(None if longest is None else longest - 1)
        return found["input_ids"][kept], [end for _, end in found["offset_mapping"]][kept]


class Remembered:
    """An embedding that reads a text once, however often it is asked for; beginnings are not kept.

    Args:
        embedding: reads the texts.
    """

    def __init__(self, embedding: Embedding) -> None:
        self.name = embedding.name
        self._embedding = embedding
        self._known: dict[str, Tensor] = {}

    def of_texts(self, texts: Sequence[str]) -> Float[Tensor, "text d"]:
        """See `Embedding`."""
        new = list(dict.fromkeys(text for text in texts if text not in self._known))
        if new:
            self._known |= zip(new, self._embedding.of_texts(new), strict=True)
        return torch.stack([self._known[text] for text in texts])

    def of_beginnings(self, text: str, ends: Sequence[int]) -> Float[Tensor, "beginning d"]:
        """See `Embedding`."""
        return self._embedding.of_beginnings(text, ends)


class SentenceTransformer:
    """A folder of sentence-transformers, which must be on this machine.

    Raises:
        InputError: the package is missing, or the folder holds no such model.
    """

    def __init__(self, folder: str | Path) -> None:
        if not Path(folder).is_dir():
            raise InputError(f"embedding {str(folder)!r}: no folder of sentence-transformers there")
        package = extra_package("sentence_transformers", f"embedding {str(folder)!r}", "texts")
        try:
            self._model = package.SentenceTransformer(str(folder), local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"embedding {str(folder)!r}: is no model of sentence-transformers "
                f"({type(error).__name__})"
            ) from error
        self.name = Path(folder).name

    def of_texts(self, texts: Sequence[str]) -> Float[Tensor, "text d"]:
        """See `Embedding`."""
        found = self._model.encode(list(texts), convert_to_numpy=True, show_progress_bar=False)
        return torch.from_numpy(found).float()

    def of_beginnings(self, text: str, ends: Sequence[int]) -> Float[Tensor, "beginning d"]:
        """See `Embedding`; each is a text of its own."""
        return self.of_texts([text[: max(1, end)] for end in ends])


def open_embedding(name: str, model: HookedModel) -> Embedding:
    """ "own", "own:LAYER", or a folder of sentence-transformers.

    Raises:
        InputError: as the two kinds.
    """
    kind, _, layer = name.partition(":")
    if kind != "own":
        return SentenceTransformer(name)
    if layer and not layer.isdecimal():
        raise InputError(f"embedding {name!r}: give own:LAYER, with a layer from 0")
    return OwnStream(model, int(layer) if layer else None)
