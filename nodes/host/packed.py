"""What a file holds in a format that the host has not: its bytes as a quantised tensor of the host, with layers for it.

Import it where a file needs it: it asks for comfy-kitchen, which old hosts lack.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import comfy.model_patcher
import torch
from comfy.model_patcher import LowVramPatch
from comfy.ops import mixed_precision_ops as mixed_precision_ops  # asked for here, since old hosts lack it too
from comfy_kitchen.tensor import QuantizedLayout, QuantizedTensor, register_layout_class
from comfy_kitchen.tensor.base import BaseLayoutParams
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from ...zimage_core.checkpoint.quantized import DENSE, Packed, dequantize, gathered

NAME = "ZImagePackedLayout"
_ALIGNMENT = 16
# Their decoders look codewords up in tables, which a compiler that traces a forward must not meet.
_WITH_TABLES = ("IQ", "MXFP4", "NVFP4")


@dataclass(frozen=True)
class Place:
    """Where in a buffer one plain tensor lies."""

    role: str
    offset: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    def of(self, buffer: Tensor) -> Tensor:
        end = self.offset + math.prod(self.shape) * self.dtype.itemsize
        return buffer[self.offset : end].view(self.dtype).view(self.shape)


@dataclass(frozen=True)
class Rows:
    """A `Packed` without its bytes."""

    format: str
    shape: tuple[int, ...]
    places: tuple[Place, ...]

    def of(self, buffer: Tensor) -> Packed:
        return Packed(self.format, self.shape, {place.role: place.of(buffer) for place in self.places})


class PackedLayout(QuantizedLayout):
    """Rows in the engine's storage formats, one after another in a flat buffer of bytes.

    Nothing is ever quantised to it: patches act on the unpacked weight, at each use.
    """

    @dataclass(frozen=True)
    class Params(BaseLayoutParams):
        """`scale` is there because the host's code asks every layout for one; ours are in the buffer."""

        rows: tuple[Rows, ...] = ()

    @classmethod
    def quantize(cls, tensor: Tensor, **kwargs: Any) -> tuple[Tensor, Any]:
        raise NotImplementedError("weights are unpacked from a file's formats and never packed to them")

    @classmethod
    def dequantize(cls, qdata: Tensor, params: Any) -> Tensor:
        """In memory of its own: the host changes it in place."""
        parts = [_numbers(rows.of(qdata), params.orig_dtype) for rows in params.rows]
        if len(parts) > 1:
            return torch.cat(parts)
        return parts[0].clone() if params.rows[0].format in DENSE else parts[0]

    @classmethod
    def get_plain_tensors(cls, qtensor: QuantizedTensor) -> tuple[Tensor, ...]:
        return (qtensor._qdata,)

    @classmethod
    def state_dict_tensors(cls, qdata: Tensor, params: Any) -> dict[str, Tensor]:
        return {"": DenseLater.of(QuantizedTensor(qdata, NAME, params))}


register_layout_class(NAME, PackedLayout)


def is_packed(weight: Any) -> bool:
    return isinstance(weight, QuantizedTensor) and weight._layout_cls == NAME


def pack(parts: Sequence[Packed], dtype: torch.dtype) -> QuantizedTensor:
    """Parts that are joined along the first axis as one tensor of the host, which unpacks to `dtype`.

    A part alone without a scale stays where it lies, which may be a mapped file; everything else is copied.
    """
    tensors = [tensor for part in parts for tensor in part.tensors.values()]
    rows, size = _laid_out(parts)
    if len(tensors) == 1:
        buffer = _bytes(tensors[0])
    else:
        buffer = torch.zeros(size, dtype=torch.uint8)
        for place, tensor in zip((place for part in rows for place in part.places), tensors):
            buffer[place.offset : place.offset + tensor.nbytes] = _bytes(tensor)
    first = parts[0].shape
    shape = (sum(part.shape[0] for part in parts), *first[1:])
    scale = torch.ones(1, dtype=torch.float32)
    return QuantizedTensor(buffer, NAME, PackedLayout.Params(scale, dtype, shape, rows))


def _laid_out(parts: Sequence[Packed]) -> tuple[tuple[Rows, ...], int]:
    rows, end = [], 0
    for part in parts:
        places = []
        for role, tensor in part.tensors.items():
            offset = -(-end // _ALIGNMENT) * _ALIGNMENT
            places.append(Place(role, offset, tensor.dtype, tuple(tensor.shape)))
            end = offset + tensor.nbytes
        rows.append(Rows(part.format, tuple(part.shape), tuple(places)))
    return tuple(rows), end


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().flatten().view(torch.uint8)


def _of_dtype(weight: QuantizedTensor, dtype: torch.dtype) -> QuantizedTensor:
    """The same bytes, to be unpacked to another type. (`to` would copy them.)"""
    return QuantizedTensor(weight._qdata, NAME, dataclasses.replace(weight._params, orig_dtype=dtype))


def _numbers(part: Packed, dtype: torch.dtype) -> Tensor:
    if not part.format.startswith(_WITH_TABLES):
        return dequantize([part], dtype)
    roles, tensors = zip(*part.tensors.items())
    return torch.ops.zimage_nodes.unpack(list(tensors), ",".join(roles), part.format, list(part.shape), dtype)


if not hasattr(torch.ops.zimage_nodes, "unpack"):

    @torch.library.custom_op("zimage_nodes::unpack", mutates_args=())
    def _unpack(tensors: list[Tensor], roles: str, format: str, shape: list[int], dtype: torch.dtype) -> Tensor:
        """The engine's `dequantize` as an operation of PyTorch, into which no compiler looks."""
        return dequantize([Packed(format, tuple(shape), dict(zip(roles.split(","), tensors)))], dtype)

    @_unpack.register_fake
    def _(tensors: list[Tensor], roles: str, format: str, shape: list[int], dtype: torch.dtype) -> Tensor:
        return tensors[0].new_empty(shape, dtype=dtype)


def _rows(table: QuantizedTensor, ids: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows of a table, `[len(ids), dim]`, with nothing else unpacked."""
    (rows,) = table._params.rows  # tables are never fused
    return _numbers(gathered(rows.of(table._qdata), ids), dtype)


@dataclass(frozen=True)
class _Nowhere:
    type: str = "nowhere"
    index: int = 0


class DenseLater(getattr(comfy.model_patcher, "LazyCastingParamPiece", nn.Parameter)):  # type: ignore[misc]
    """What a packed weight is in a state dict: of the weight's shape and type, counted as its packed bytes.

    It is unpacked, and patched with what the layer patches it with, when something is done with it. A writer's copy,
    which the host makes through `detach` and `__init__`, asks the host's patcher instead, as its own lazy entries do.
    """

    packed: QuantizedTensor
    patches: list[Any]

    @classmethod
    def of(cls, packed: QuantizedTensor, patches: Sequence[Any] = ()) -> DenseLater:
        cpu = torch.device("cpu")
        entry = torch.Tensor._make_wrapper_subclass(cls, packed.shape, dtype=packed.dtype, device=cpu)
        entry.packed, entry.patches = packed, list(patches)
        return entry

    def dense(self) -> Tensor:
        weight = self.packed.dequantize()
        for patch in self.patches:
            weight = patch(weight)
        return weight

    @property
    def nbytes(self) -> int:
        return self.packed.nbytes

    @property
    def device(self) -> Any:
        """Nowhere: a writer calls `to("cpu")`."""
        return _Nowhere()

    def untyped_storage(self) -> torch.UntypedStorage:
        """None: a writer compares storages to find tensors that share one."""
        return torch.UntypedStorage(0)

    def detach(self) -> DenseLater:
        return DenseLater.of(self.packed, self.patches)

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        return super().to(*args, **kwargs) if hasattr(self, "caster") else self.dense().to(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map_only(DenseLater, DenseLater.dense, (args, kwargs or {}))
        return func(*args, **kwargs)


def operations(host: Any) -> Any:
    """The host's operations for mixed precision, whose layers also take packed weights."""

    class Operations(host):
        class Linear(_Layer, host.Linear):
            def _forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
                return super()._forward(input, weight.dequantize() if is_packed(weight) else weight, bias)

        class Embedding(_Layer, host.Embedding):
            def forward_comfy_cast_weights(self, input: Tensor, out_dtype: torch.dtype | None = None) -> Tensor:
                weight = self.weight
                if not is_packed(weight) or self.weight_function:
                    return super().forward_comfy_cast_weights(input, out_dtype=out_dtype)
                # Where the table lies: the few rows are moved and not all of it.
                rows = _rows(weight, input.flatten().to(weight.device), out_dtype or weight.dtype)
                return rows.to(input.device).view(*input.shape, weight.shape[1])

    return Operations


class _Layer(nn.Module if TYPE_CHECKING else object):  # type: ignore[misc]
    """A layer of the host that may hold a packed weight. With any other, the host's own code does the work.

    A patch never changes a packed weight: it becomes one of the functions that the host applies to the unpacked weight
    at each use. So a LoRA costs no memory, and nothing is left of it when it is gone.
    """

    weight: Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._functions: list[Any] = []
        self._streamed_patch: Any = None

    def _holds_packed(self) -> bool:
        return is_packed(self._parameters.get("weight"))

    def _put(self, weight: QuantizedTensor) -> None:
        self._parameters["weight"] = nn.Parameter(weight, requires_grad=False)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "weight" and self._holds_packed():
            # The host puts a weight back: it is without patches from now on.
            self._functions = [function for function in self._functions if not _is_patch(function)]

    # Loading, moving and saving.

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: Any, strict: bool,
        missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str],
    ) -> None:  # fmt: skip
        rest = (local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        key = f"{prefix}weight"
        if not is_packed(state_dict.get(key)):
            super()._load_from_state_dict(state_dict, prefix, *rest)
            return
        self._put(_of_dtype(state_dict.pop(key), self._compute_dtype()))
        nn.Module._load_from_state_dict(self, state_dict, prefix, *rest)
        if key in missing_keys:
            missing_keys.remove(key)

    def _compute_dtype(self) -> torch.dtype:
        """The host's Linear keeps what it was built with, and has no weight yet; its table has one."""
        return self.factory_kwargs["dtype"] if hasattr(self, "factory_kwargs") else self.weight.dtype

    def state_dict(self, *args: Any, destination: Any = None, prefix: str = "", **kwargs: Any) -> Any:
        if not self._holds_packed():
            return super().state_dict(*args, destination=destination, prefix=prefix, **kwargs)
        found = {} if destination is None else destination
        found[f"{prefix}weight"] = DenseLater.of(self.weight, [f for f in self.weight_function if _is_patch(f)])
        if self.bias is not None:
            found[f"{prefix}bias"] = self.bias
        return found

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        if not self._holds_packed():
            return super()._apply(fn, recurse)
        weight = self._parameters.pop("weight")
        super()._apply(fn, recurse)
        self._put(fn(weight))
        return self

    # LoRA and other patches. The host finds these two by name when it writes patched weights into the model.

    def convert_weight(self, weight: Tensor, inplace: bool = False, **kwargs: Any) -> Tensor:
        return weight.dequantize() if isinstance(weight, QuantizedTensor) else weight

    def set_weight(
        self, weight: Tensor, inplace_update: bool = False, seed: int | None = None, return_weight: bool = False,
        **kwargs: Any,
    ) -> Tensor | None:  # fmt: skip
        if inplace_update:
            raise ValueError(
                "LoRAs that change in mid-run (hooks) need weights that are not quantised: "
                "use a bf16 file of this model, or a LoRA loader without a schedule"
            )
        held = self.weight
        hosts = getattr(super(), "set_weight", None)  # its table has none
        if hosts is not None and not is_packed(held):
            return hosts(weight, seed=seed, return_weight=return_weight, **kwargs)
        quantised = isinstance(held, QuantizedTensor)
        dense = weight.to(held.dtype)
        if return_weight:
            return _as_quantised(dense) if quantised else dense
        if is_packed(held):
            self._put(held.to(weight.device))  # `patch_at_use` comes when all weights are loaded
        else:
            self.weight = nn.Parameter(dense, requires_grad=False)
        return None

    # With dynamic VRAM the host streams a patch beside the weight, applies it once, and keeps the result quantised.

    @property
    def weight_lowvram_function(self) -> Any:
        return None if self._holds_packed() else self._streamed_patch

    @weight_lowvram_function.setter
    def weight_lowvram_function(self, patch: Any) -> None:
        self._streamed_patch = patch

    @property
    def weight_function(self) -> list[Any]:
        streamed = self._streamed_patch is not None and hasattr(self, "_v") and self._holds_packed()
        return [self._streamed_patch, *self._functions] if streamed else self._functions

    @weight_function.setter
    def weight_function(self, functions: list[Any]) -> None:
        self._functions = functions


def patch_at_use(patcher: Any, *_: Any) -> None:
    """After a load: the patches of packed weights that the host believes to have written become functions."""
    for name, layer in patcher.model.named_modules():
        key = f"{name}.weight"
        written = isinstance(layer, _Layer) and layer._holds_packed() and key in patcher.patches
        if written and not any(map(_is_patch, layer.weight_function)):
            layer.weight_function = [LowVramPatch(key, patcher.patches), *layer.weight_function]


def _is_patch(function: Any) -> bool:
    """Not so are the functions of nodes that train or look on."""
    return isinstance(function, LowVramPatch)


def _as_quantised(weight: Tensor) -> QuantizedTensor:
    """A dense weight in the form in which the host takes back a quantised one: it asks for its state dict."""
    name = next(name for name, title in DENSE.items() if getattr(torch, title) == weight.dtype)
    return pack([Packed(name, tuple(weight.shape), {"data": weight})], weight.dtype)
