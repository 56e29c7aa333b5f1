"""The block formats of GGML, which GGUF files are made of: one table, and one dequantiser each.

A tensor is cut into blocks of so many weights along its last dimension; a block is so many bytes. Every dequantiser
gives, bit for bit, what the `gguf` package's numpy gives. The tables of codewords of the IQ types are taken from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

# So many weights are converted at a time: what stays in a processor's cache, and what a GPU has to spare.
CHUNK, GPU_CHUNK = 1 << 20, 1 << 26


@dataclass(frozen=True)
class BlockType:
    """How one type stores its weights.

    code      the number by which a GGUF file names it
    weights   per block
    bytes     per block
    decode    uint8 [n, bytes] -> float32 [n, weights], in memory of its own
    """

    code: int
    weights: int
    bytes: int
    decode: Callable[[Tensor], Tensor]

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.bytes / self.weights


def n_bytes(name: str, shape: Sequence[int]) -> int:
    """What a tensor of this type and shape takes. ValueError if its last dimension is not a whole number of blocks."""
    kind = TYPES[name]
    last = shape[-1] if shape else 1
    if last % kind.weights:
        raise ValueError(
            f"the last dimension of {tuple(shape)} is not a multiple of {kind.weights}, the block of {name}"
        )
    return math.prod(shape) // kind.weights * kind.bytes


def dequantize(name: str, data: Tensor, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """The weights that the bytes of `data` (uint8, of any shape) stand for: `dtype` of `shape`, on the same device.

    They are computed in float32. In another type, only a part of them is ever held in float32.
    """
    kind = TYPES[name]
    if data.dtype != torch.uint8 or data.numel() * kind.weights != math.prod(shape) * kind.bytes:
        raise ValueError(f"{data.numel()} bytes of {data.dtype} do not make {name} weights of the shape {tuple(shape)}")
    weights = _convert(kind.decode, data.reshape(-1, kind.bytes), kind.weights, dtype)
    return weights.reshape(shape)


def quantize_q8_0(weights: Tensor) -> Tensor:
    """Weights [..., k * 32] as Q8_0: uint8 [..., k * 34]. Bit for bit what the `gguf` package's quantiser gives."""
    columns = n_bytes("Q8_0", weights.shape[-1:])
    return _convert(_to_q8_0, weights.reshape(-1, 32), 34, torch.uint8).reshape(*weights.shape[:-1], columns)


def _convert(convert: Callable[[Tensor], Tensor], rows: Tensor, columns: int, dtype: torch.dtype) -> Tensor:
    """`convert`, which makes rows of so many `columns`, over all rows, with little memory beside the result."""
    chunk = (CHUNK if rows.device.type == "cpu" else GPU_CHUNK) // max(columns, rows.shape[1])
    if 0 < len(rows) <= chunk:
        return convert(rows).to(dtype)
    out = torch.empty(len(rows), columns, dtype=dtype, device=rows.device)
    for start in range(0, len(rows), chunk):
        out[start : start + chunk] = convert(rows[start : start + chunk])
    return out


def _to_q8_0(blocks: Tensor) -> Tensor:
    blocks = blocks.float()
    largest = blocks.abs().amax(1, keepdim=True)
    # Divided by a tensor: by a number, a GPU would multiply with its rounded reciprocal.
    scale = largest / torch.full_like(largest, 127)
    steps = blocks * torch.where(scale == 0, 0, 1 / scale)
    size = steps.abs()
    # Halves are rounded away from zero. (torch.round takes them to the even number.)
    q = (size.floor() + (size.frac() >= 0.5)) * steps.sign()
    return torch.cat([scale.half().view(torch.uint8), q.to(torch.int8).view(torch.uint8)], 1)


# Pieces of the dequantisers. Blocks are uint8 [n, bytes] throughout, and numbers are little-endian.


def _view(data: Tensor, dtype: torch.dtype) -> Tensor:
    """Bytes as numbers, copied first: a view of another type needs them side by side and aligned."""
    return data.clone(memory_format=torch.contiguous_format).view(dtype)


def _half(blocks: Tensor, at: int) -> Tensor:
    """The float16 at byte `at` of each block: float32 [n, 1]."""
    return _view(blocks[:, at : at + 2], torch.float16).float()


def _plain(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    return lambda blocks: _view(blocks, dtype).float()


def _fields(data: Tensor, bits: int, run: int = 1) -> Tensor:
    """Bytes [n, m] cut into fields of 1, 2 or 4 bits: uint8 [n, m * 8 / bits].

    Each run of bytes gives first the lowest field of each of them, then the next of each, and so on.
    """
    runs = data.reshape(len(data), -1, run)
    fields = [(runs >> shift) & ((1 << bits) - 1) for shift in range(0, 8, bits)]
    return torch.stack(fields, 2).reshape(len(data), -1)


def _look_up(values: Tensor, index: Tensor) -> Tensor:
    """`values` (or rows of values) by number: float32 [n, ...], flat behind n."""
    return values.index_select(0, index.reshape(-1).int()).reshape(len(index), -1)


def _scaled(q: Tensor, scales: Tensor, minima: Tensor | None = None) -> Tensor:
    """Each of the scales [n, s] is for 1/s of the numbers [n, weights]; so is each of the minima, then taken off."""
    groups = q.float().reshape(*scales.shape, -1).mul_(scales[:, :, None])
    if minima is not None:
        groups.sub_(minima[:, :, None])
    return groups.reshape(len(q), -1)


def _q4_0(b: Tensor) -> Tensor:
    return _scaled(_fields(b[:, 2:], 4, 16).float().sub_(8), _half(b, 0))


def _q4_1(b: Tensor) -> Tensor:
    return _fields(b[:, 4:], 4, 16).float().mul_(_half(b, 0)).add_(_half(b, 2))


def _q5_0(b: Tensor) -> Tensor:
    q = _fields(b[:, 6:], 4, 16) | _fields(b[:, 2:6], 1) << 4
    return _scaled(q.float().sub_(16), _half(b, 0))


def _q5_1(b: Tensor) -> Tensor:
    q = _fields(b[:, 8:], 4, 16) | _fields(b[:, 4:8], 1) << 4
    return q.float().mul_(_half(b, 0)).add_(_half(b, 2))


def _q8_0(b: Tensor) -> Tensor:
    return _scaled(b[:, 2:].view(torch.int8), _half(b, 0))


def _q2_k(b: Tensor) -> Tensor:
    scales, minima = b[:, :16] & 15, b[:, :16] >> 4
    return _scaled(_fields(b[:, 16:80], 2, 32), _half(b, 80) * scales, _half(b, 82) * minima)


def _q3_k(b: Tensor) -> Tensor:
    scales = _fields(b[:, 96:104], 4, 8) | _fields(b[:, 104:108], 2, 4) << 4
    q = _fields(b[:, 32:96], 2, 32) | _fields(b[:, :32], 1, 32) << 2
    return _scaled(q.float().sub_(4), _half(b, 108) * (scales.float() - 32))


def _scales_and_minima(b: Tensor) -> tuple[Tensor, Tensor]:
    """Of Q4_K and Q5_K: float32 [n, 8] each, from 6 bits each. The last four have their high bits with the first."""
    s, m, low = b[:, 4:8], b[:, 8:12], b[:, 12:16]
    scales = torch.cat([s & 63, (low & 15) | (s >> 6) << 4], 1)
    minima = torch.cat([m & 63, (low >> 4) | (m >> 6) << 4], 1)
    return _half(b, 0) * scales, _half(b, 2) * minima


def _q4_k(b: Tensor) -> Tensor:
    return _scaled(_fields(b[:, 16:], 4, 32), *_scales_and_minima(b))


def _q5_k(b: Tensor) -> Tensor:
    q = _fields(b[:, 48:], 4, 32) | _fields(b[:, 16:48], 1, 32) << 4
    return _scaled(q, *_scales_and_minima(b))


def _q6_k(b: Tensor) -> Tensor:
    q = _fields(b[:, :128], 4, 64) | _fields(b[:, 128:192], 2, 32) << 4
    return _scaled(q.float().sub_(32), _half(b, 208) * b[:, 192:208].view(torch.int8))


def _trits(data: Tensor, count: int) -> Tensor:
    """Bytes [n, m] that hold `count` digits of base 3 each, as a fraction of 256: the first of each, the second, ..."""
    shifted = torch.cat([data * 3**i for i in range(count)], 1)  # a byte drops what is above the point
    return (shifted.to(torch.int16) * 3) >> 8


def _tq1_0(b: Tensor) -> Tensor:
    q = torch.cat([_trits(b[:, :32], 5), _trits(b[:, 32:48], 5), _trits(b[:, 48:52], 4)], 1)
    return _scaled(q.float().sub_(1), _half(b, 52))


def _tq2_0(b: Tensor) -> Tensor:
    return _scaled(_fields(b[:, :64], 2, 32).float().sub_(1), _half(b, 64))


@lru_cache(maxsize=64)
def _constant(values: tuple[int, ...], device: torch.device) -> Tensor:
    # Made for every mode: a tensor of inference mode would break training later.
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=torch.float32, device=device)


# Twice the sixteen values of a 4-bit float, so that they are whole; the scales of its types are halved in return.
FP4 = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)


def _mxfp4(b: Tensor) -> Tensor:
    exponent = b[:, :1].int()
    # The bits of 2 ** (exponent - 128), of which the two smallest are denormal.
    bits = torch.where(exponent < 2, (exponent + 1) << 21, (exponent - 1) << 23)
    return _scaled(_look_up(_constant(FP4, b.device), _fields(b[:, 1:], 4, 16)), bits.view(torch.float32))


def _nvfp4(b: Tensor) -> Tensor:
    code = b[:, :4].int()
    exponent, mantissa = (code >> 3) & 15, code & 7
    steps = torch.where(exponent == 0, mantissa, (mantissa + 8) << (exponent - 1).clamp(min=0))
    scales = steps.masked_fill(code == 0x7F, 0).float() * 2.0**-10
    return _scaled(_look_up(_constant(FP4, b.device), _fields(b[:, 4:], 4, 8)), scales)


# Steps that grow towards the ends.
IQ4 = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


def _iq4_nl(b: Tensor) -> Tensor:
    return _scaled(_look_up(_constant(IQ4, b.device), _fields(b[:, 2:], 4, 16)), _half(b, 0))


def _iq4_xs(b: Tensor) -> Tensor:
    scales = _fields(b[:, 4:8], 4) | _fields(b[:, 2:4], 2) << 4
    q = _look_up(_constant(IQ4, b.device), _fields(b[:, 8:], 4, 16))
    return _scaled(q, _half(b, 0) * (scales.float() - 32))


# The other IQ types name codewords, of 8 or 4 weights, by number in a grid; signs are apart, or, for 1 bit, a shift.


@lru_cache(maxsize=64)
def _grid(name: str, device: torch.device) -> Tensor:
    """The codewords of a type: float32 [codewords, 8 or 4]."""
    try:
        from gguf import quants
    except ImportError as error:
        raise ImportError(
            f"weights of the type {name} need the tables of the gguf package: pip install gguf"
        ) from error
    kind = getattr(quants, name)
    kind.init_grid()
    with torch.inference_mode(False):
        return torch.from_numpy(kind.grid.reshape(kind.grid_shape)).to(device, torch.float32, copy=True)


@lru_cache(maxsize=16)
def _signs(device: torch.device) -> Tensor:
    """Float32 [256, 8]: -1 for each bit that is set."""
    with torch.inference_mode(False):
        bits = _fields(torch.arange(256, dtype=torch.uint8, device=device)[:, None], 1)
        return 1 - 2 * bits.float()


@lru_cache(maxsize=16)
def _even_signs(device: torch.device) -> Tensor:
    """Float32 [128, 8]: as `_signs` for 7 bits; the eighth sign makes the negative ones an even number."""
    with torch.inference_mode(False):
        signs = _signs(device)[:128].clone()
        signs[:, 7] = signs.prod(1)
        return signs


def _split(words: Tensor, shifts: tuple[int, ...], mask: int) -> Tensor:
    """Several numbers from each of the words [n, m], in order: [n, m * len(shifts)]."""
    return torch.stack([(words >> shift) & mask for shift in shifts], 2).reshape(len(words), -1)


def _iq2_xxs(b: Tensor) -> Tensor:
    pairs = b[:, 2:].reshape(len(b), 8, 8)
    words = _view(pairs[:, :, 4:], torch.int32)[:, :, 0]
    q = _look_up(_grid("IQ2_XXS", b.device), pairs[:, :, :4]).mul_(
        _look_up(_even_signs(b.device), _split(words, (0, 7, 14, 21), 127))
    )
    return _scaled(q, _half(b, 0) * (((words >> 28) & 15).float() + 0.5) * 0.25)


def _iq2_xs(b: Tensor) -> Tensor:
    words = _view(b[:, 2:66], torch.int16).int()
    q = _look_up(_grid("IQ2_XS", b.device), words & 511).mul_(_look_up(_even_signs(b.device), (words >> 9) & 127))
    return _scaled(q, _half(b, 0) * (_fields(b[:, 66:], 4).float() + 0.5) * 0.25)


def _iq2_s(b: Tensor) -> Tensor:
    index = b[:, 2:34].int() | _fields(b[:, 66:74], 2).int() << 8
    q = _look_up(_grid("IQ2_S", b.device), index).mul_(_look_up(_signs(b.device), b[:, 34:66]))
    return _scaled(q, _half(b, 0) * (_fields(b[:, 74:], 4).float() + 0.5) * 0.25)


def _iq3_xxs(b: Tensor) -> Tensor:
    words = _view(b[:, 66:], torch.int32)
    q = _look_up(_grid("IQ3_XXS", b.device), b[:, 2:66]).mul_(
        _look_up(_even_signs(b.device), _split(words, (0, 7, 14, 21), 127))
    )
    return _scaled(q, _half(b, 0) * (((words >> 28) & 15).float() + 0.5) * 0.5)


def _iq3_s(b: Tensor) -> Tensor:
    index = b[:, 2:66].int() | _fields(b[:, 66:74], 1).int() << 8
    q = _look_up(_grid("IQ3_S", b.device), index).mul_(_look_up(_signs(b.device), b[:, 74:106]))
    return _scaled(q, _half(b, 0) * (_fields(b[:, 106:], 4) * 2 + 1))


def _iq1_s(b: Tensor) -> Tensor:
    words = _view(b[:, 34:], torch.int16).int()
    index = b[:, 2:34].int() | _split(words, (0, 3, 6, 9), 7) << 8
    q = _look_up(_grid("IQ1_S", b.device), index)
    q = _shifted(q, words < 0)
    return _scaled(q, _half(b, 0) * (((words >> 12) & 7) * 2 + 1))


def _iq1_m(b: Tensor) -> Tensor:
    words = _view(b[:, 48:], torch.int16).int()
    high = _fields(b[:, 32:48], 4).int()
    q = _look_up(_grid("IQ1_M", b.device), b[:, :32].int() | (high & 7) << 8)
    q = _shifted(q, (high & 8) != 0)
    # The float16 is in pieces: the highest 4 bits of each word, the lowest piece first.
    top = b[:, 49::2] >> 4
    scale = _half(top[:, ::2] | top[:, 1::2] << 4, 0)
    return _scaled(q, scale * (_split(words, (0, 3, 6, 9), 7) * 2 + 1))


def _shifted(q: Tensor, down: Tensor) -> Tensor:
    """Numbers [n, weights] moved by an eighth, each group of them up or down as `down` [n, groups] says."""
    shifts = 0.125 - 0.25 * down.float()
    return q.reshape(*down.shape, -1).add_(shifts[:, :, None]).reshape(len(q), -1)


TYPES: dict[str, BlockType] = {
    "F32": BlockType(0, 1, 4, _plain(torch.float32)),
    "F16": BlockType(1, 1, 2, _plain(torch.float16)),
    "Q4_0": BlockType(2, 32, 18, _q4_0),
    "Q4_1": BlockType(3, 32, 20, _q4_1),
    "Q5_0": BlockType(6, 32, 22, _q5_0),
    "Q5_1": BlockType(7, 32, 24, _q5_1),
    "Q8_0": BlockType(8, 32, 34, _q8_0),
    "Q2_K": BlockType(10, 256, 84, _q2_k),
    "Q3_K": BlockType(11, 256, 110, _q3_k),
    "Q4_K": BlockType(12, 256, 144, _q4_k),
    "Q5_K": BlockType(13, 256, 176, _q5_k),
    "Q6_K": BlockType(14, 256, 210, _q6_k),
    "IQ2_XXS": BlockType(16, 256, 66, _iq2_xxs),
    "IQ2_XS": BlockType(17, 256, 74, _iq2_xs),
    "IQ3_XXS": BlockType(18, 256, 98, _iq3_xxs),
    "IQ1_S": BlockType(19, 256, 50, _iq1_s),
    "IQ4_NL": BlockType(20, 32, 18, _iq4_nl),
    "IQ3_S": BlockType(21, 256, 110, _iq3_s),
    "IQ2_S": BlockType(22, 256, 82, _iq2_s),
    "IQ4_XS": BlockType(23, 256, 136, _iq4_xs),
    "I8": BlockType(24, 1, 1, _plain(torch.int8)),
    "I16": BlockType(25, 1, 2, _plain(torch.int16)),
    "I32": BlockType(26, 1, 4, _plain(torch.int32)),
    "I64": BlockType(27, 1, 8, _plain(torch.int64)),
    "F64": BlockType(28, 1, 8, _plain(torch.float64)),
    "IQ1_M": BlockType(29, 256, 56, _iq1_m),
    "BF16": BlockType(30, 1, 2, _plain(torch.bfloat16)),
    "TQ1_0": BlockType(34, 256, 54, _tq1_0),
    "TQ2_0": BlockType(35, 256, 66, _tq2_0),
    "MXFP4": BlockType(39, 32, 17, _mxfp4),
    "NVFP4": BlockType(40, 64, 36, _nvfp4),
}
# What is decoded by the gguf package's tables of codewords.
TABLED = tuple(name for name in TYPES if name.startswith(("IQ1", "IQ2", "IQ3")))
