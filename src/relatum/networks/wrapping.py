"""Any `nn.Module` as a backbone: what of its output is the embedding, and which of its children are the stages."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import isqrt
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from relatum.core.types import Features
from relatum.networks.backbones import Backbone

Pool = Literal["auto", "first", "mean"]
"""How tokens become an embedding; see `Wrapped`."""


class WithClassifier(nn.Module):
    """A module and the classifier of its embedding: what is exported of a wrapped module with classes."""

    def __init__(self, module: nn.Module, classifier: nn.Linear) -> None:
        super().__init__()
        self.module, self.classifier = module, classifier


class Wrapped(Backbone):
    """A module that was not made by name, as a backbone; `Backbone.wrap` makes it and says what the arguments are.

    Attributes:
        stage_names: the children whose outputs are the stages.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        stages: Sequence[str] = (),
        classifier: str = "",
        num_classes: int = 0,
        in_channels: int = 3,
        size: int = 224,
        pool: Pool | Callable[[Any], Tensor] = "auto",
        name: str = "",
    ) -> None:
        nn.Module.__init__(self)
        if num_classes < 0 or in_channels < 1 or size < 1:
            raise ValueError(
                f"num_classes is {num_classes}, in_channels {in_channels} and size {size}; expected at least 0, 1 and 1"
            )
        if not callable(pool) and pool not in ("auto", "first", "mean"):
            raise ValueError(f"pool is {pool!r}; expected auto, first, mean, or a function of the module's output")
        self.name = name or f"wrapped:{type(module).__name__}"
        self.stem = "imagenet"  # as it was made
        self.num_classes, self.in_channels, self.chunk = num_classes, in_channels, 0
        self.img_size = self.patch_size = None
        self.arguments: dict[str, Any] = {}
        self.stage_names = tuple(stages)
        self._pool = pool
        for stage in self.stage_names:
            _child(module, stage, "stages names")
        given = _taken_out(module, classifier) if classifier else None
        self.model = module
        self._measure(size)
        if num_classes:
            head = nn.Linear(self.embedding_dim, num_classes)
            if given is not None and given.out_features == num_classes:
                head.load_state_dict(given.state_dict(), strict=given.bias is not None)
            like = next(module.parameters(), head.weight)
            self.model = WithClassifier(module, head.to(like.device, like.dtype))

    @property
    def module(self) -> nn.Module:
        """The module that was wrapped."""
        return self.model.module if isinstance(self.model, WithClassifier) else self.model

    def forward(self, images: Float[Tensor, "n c h w"]) -> Features:
        self.refuse_images_of(*images.shape[1:])
        stages, embedding = self._read(images)
        head = self.model.classifier if isinstance(self.model, WithClassifier) else None
        return Features(stages, embedding, None if head is None else head(embedding))

    def _embed(self, images: Tensor) -> Tensor:
        return self._pooled(self.module(images))

    def refuse_images_of(self, channels: int, height: int, width: int) -> None:
        """Raise for images of other channels; which sizes a module takes, it knows itself.

        Raises:
            ValueError: as said.
        """
        if channels != self.in_channels:
            raise ValueError(
                f"images have {channels} channels; {self.name} was wrapped for {self.in_channels}: convert the "
                f"images, or wrap it with in_channels={channels}"
            )

    def _read(self, images: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """The stages and the embedding, of one pass."""
        found: dict[str, tuple[Any, int]] = {}

        def keep(stage: str) -> Callable[[nn.Module, Any, Any], None]:
            def hook(module: nn.Module, inputs: Any, output: Any) -> None:
                maps = output[0] if isinstance(output, tuple | list) else output
                found[stage] = (maps, _writes(maps))

            return hook

        hooks = [_child(self.module, stage).register_forward_hook(keep(stage)) for stage in self.stage_names]
        try:
            embedding = self._pooled(self.module(images))
        finally:
            for hook in hooks:
                hook.remove()
        missing = (None, 0)  # of a child that the module has not called
        return tuple(self._map(stage, found.get(stage, missing), images) for stage in self.stage_names), embedding

    def _map(self, stage: str, kept: tuple[Any, int], images: Tensor) -> Tensor:
        """The output of a child as a map "n c h w"; tokens "n t c" of a square image become a square."""
        maps, writes = kept
        if isinstance(maps, Tensor) and _writes(maps) != writes:
            raise ValueError(
                f"the output of the stage {stage!r} of {self.name} is overwritten by the layer behind it (inplace=True)"
                "; name that layer instead"
            )
        if isinstance(maps, Tensor) and maps.ndim == 4:
            return maps
        if isinstance(maps, Tensor) and maps.ndim == 3 and images.shape[2] == images.shape[3]:
            side = isqrt(maps.shape[1])
            return maps[:, maps.shape[1] - side**2 :].transpose(1, 2).unflatten(2, (side, side))
        raise ValueError(
            f"the stage {stage!r} of {self.name} gives {_described(maps)}; expected a map n x c x h x w, or the tokens "
            "n x t x c of a square image, the patches last: name another child"
        )

    def _pooled(self, output: Any) -> Tensor:
        """The embedding in what the module returns."""
        if callable(self._pool):
            found = self._pool(output)
        else:
            found = output if isinstance(output, Tensor) else self._tensor_of(output)
            if isinstance(found, Tensor) and found.ndim == 3 and self._pool != "auto":
                found = found[:, 0] if self._pool == "first" else found.mean(1)
        if isinstance(found, Tensor) and found.ndim == 4:
            found = found.mean((2, 3))
        if isinstance(found, Tensor) and found.ndim == 2:
            return found
        raise ValueError(
            f"{self.name} returns {_described(found)}, of which the embedding n x d is not plain: "
            'wrap it with pool="first" (the class token), pool="mean" (of all tokens), or pool=FUNCTION, which takes '
            "what the module returns"
        )

    def _tensor_of(self, output: Any) -> Any:
        """The tensor of a Hugging Face output that holds the features."""
        tokens, pooled = getattr(output, "last_hidden_state", None), getattr(output, "pooler_output", None)
        if self._pool != "auto" and tokens is not None:
            return tokens
        return next((part for part in (pooled, tokens) if part is not None), output)

    def _measure(self, size: int) -> None:
        """Widths and strides, of a pass of zeros that leaves the module as it was."""
        like = next(self.model.parameters(), torch.empty(()))
        images = torch.zeros(2, self.in_channels, size, size, device=like.device, dtype=like.dtype)
        try:
            with _untouched(self.model):
                stages, embedding = self._read(images)
        except ValueError as error:
            if self.name in str(error):
                raise
            raise self._failed(images, error) from error
        except Exception as error:  # of a module that anybody wrote
            raise self._failed(images, error) from error
        if len(embedding) != len(images):
            raise ValueError(f"{self.name} gives {tuple(embedding.shape)} for {len(images)} images; expected 2 x d")
        self.embedding_dim = embedding.shape[1]
        self.stage_channels = tuple(stage.shape[1] for stage in stages)
        self.stage_strides = tuple(max(1, size // stage.shape[2]) for stage in stages)

    def _failed(self, images: Tensor, error: Exception) -> ValueError:
        shape = " x ".join(map(str, images.shape))
        return ValueError(
            f"{self.name} was tried with images {shape} and failed ({type(error).__name__}: {error}); say which images "
            "it takes with size= and in_channels="
        )


def _child(module: nn.Module, path: str, said: str = "") -> nn.Module:
    """A descendant by its path.

    Raises:
        ValueError: there is none.
    """
    try:
        return module.get_submodule(path)
    except AttributeError:
        children = ", ".join(name for name, _ in module.named_children()) or "none"
        raise ValueError(f"{said} {path!r}, and {type(module).__name__} has no such child; it has {children}") from None


def _taken_out(module: nn.Module, path: str) -> nn.Linear:
    """The classifier at `path`, whose place an identity takes: what the module then returns is the embedding."""
    layer = _child(module, path, "classifier is")
    if not isinstance(layer, nn.Linear):
        raise ValueError(
            f"classifier is {path!r}, and that is a {type(layer).__name__}; expected the linear layer whose input is "
            "the embedding, such as 'fc' or 'classifier.6'"
        )
    module.set_submodule(path, nn.Identity())
    return layer


def _writes(tensor: Any) -> int:
    """How often a tensor was written in place; inference tensors do not count."""
    return 0 if not isinstance(tensor, Tensor) or tensor.is_inference() else tensor._version


def _described(found: Any) -> str:
    if isinstance(found, Tensor):
        return f"a tensor {' x '.join(map(str, found.shape))}"
    parts = ", ".join(map(str, found)) if isinstance(found, dict) else ""
    return f"{'nothing' if found is None else f'a {type(found).__name__}'}{f' of {parts}' if parts else ''}"


@contextmanager
def _untouched(module: nn.Module) -> Iterator[None]:
    """Evaluation without gradients; modes and random numbers are afterwards what they were."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        for part, training in modes.items():
            part.training = training
