"""How many bytes of tensors are alive at once while something runs on the meta device, where nothing is computed."""

from __future__ import annotations

import weakref
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Peak(TorchDispatchMode):
    """Counts the storages that operations make, as long as they live; a module's own are left out."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.sizes = {parameter.untyped_storage()._cdata: 0 for parameter in module.parameters()}
        self.now = self.bytes = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self.sizes:
                self._add(tensor.untyped_storage())
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        self.sizes[storage._cdata] = storage.nbytes()
        self.now += storage.nbytes()
        self.bytes = max(self.bytes, self.now)
        weakref.finalize(storage, self._drop, storage._cdata)

    def _drop(self, key: int) -> None:
        self.now -= self.sizes.pop(key)


class FusedAttention(TorchFunctionMode):
    """Attention as on a GPU: its result alone, and no table of all pairs."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is F.scaled_dot_product_attention:
            return torch.empty_like(args[0])
        return function(*args, **(kwargs or {}))


def peak(module: torch.nn.Module, run: Any) -> int:
    """Bytes at the peak of `run()`."""
    with torch.no_grad(), FusedAttention(), Peak(module) as found:
        run()
    return found.bytes
