"""GGML's block formats against the gguf package's numpy, bit by bit."""

from __future__ import annotations

import sys

import gguf
import numpy as np
import pytest
import torch
from gguf.quants import _type_traits

from zimage_core.checkpoint import ggml
from zimage_core.checkpoint.ggml import TYPES, dequantize, n_bytes, quantize_q8_0

# Where each type has its float16 numbers. (The IQ1_M has one in pieces; the FP4 types' scales are bytes.)
HALVES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
    "IQ2_XXS": [0], "IQ2_XS": [0], "IQ2_S": [0], "IQ3_XXS": [0], "IQ3_S": [0], "IQ1_S": [0],
    "IQ4_NL": [0], "IQ4_XS": [0], "TQ1_0": [52], "TQ2_0": [64], "F16": [0],
    "IQ1_M": [], "MXFP4": [], "NVFP4": [], "BF16": [], "F32": [],
}  # fmt: skip
QUANTISABLE = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0", "MXFP4", "BF16", "F16", "F32"]


def code(name):
    return gguf.GGMLQuantizationType[name]


def random_blocks(name, n, seed=0):
    """Blocks of random bytes, in which the scales are numbers: of both signs, normal, denormal and zero."""
    random = np.random.default_rng(seed)
    if name in ("F32", "BF16"):
        numbers = random.standard_normal(n).astype(np.float32).view(np.uint8).reshape(n, 4)
        return np.ascontiguousarray(numbers[:, -TYPES[name].bytes :])
    blocks = random.integers(0, 256, (n, TYPES[name].bytes), dtype=np.uint8)
    for at in HALVES[name]:
        scales = random.standard_normal(n) * random.choice([0, 1e-7, 1e-3, 0.1, 10], n)
        blocks[:, at : at + 2] = scales.astype(np.float16).view(np.uint8).reshape(n, 2)
    if name == "IQ1_M":
        blocks[:, 55] &= 0xAF  # keeps the float16's exponent below the last, which is infinity
    return blocks


def bits(tensor):
    return torch.as_tensor(tensor).contiguous().view(torch.int32)


@np.errstate(over="ignore")  # MXFP4's largest scales, which end in infinity in both
def theirs(name, data, shape=(-1,)):
    return gguf.quants.dequantize(np.ascontiguousarray(data).reshape(-1), code(name)).reshape(shape)


def test_the_table_is_that_of_the_gguf_package():
    for name, kind in TYPES.items():
        assert kind.code == code(name)
        assert (kind.weights, kind.bytes) == gguf.GGML_QUANT_SIZES[code(name)]
    assert {kind.name for kind in _type_traits} <= TYPES.keys()
    assert {kind.name for kind in _type_traits} | {"F16", "F32"} == HALVES.keys()
    assert TYPES["Q4_K"].bits_per_weight == 4.5


@pytest.mark.parametrize("name", HALVES)
def test_random_blocks_decode_bit_for_bit(name):
    blocks = random_blocks(name, 500)
    want = theirs(name, blocks)
    assert want.size == 500 * TYPES[name].weights and not np.isnan(want).any()
    got = dequantize(name, torch.from_numpy(blocks), want.shape)
    assert got.dtype == torch.float32 and torch.equal(bits(got), bits(want))


@pytest.mark.parametrize("name", QUANTISABLE)
def test_quantised_weights_decode_bit_for_bit(name):
    weights = np.random.default_rng(1).standard_normal((6, 512)).astype(np.float32)
    weights[2, 64:320] = 0
    data = gguf.quants.quantize(weights, code(name))
    got = dequantize(name, torch.from_numpy(data.view(np.uint8)), (6, 512))
    assert torch.equal(bits(got), bits(gguf.quants.dequantize(data, code(name))))
    assert n_bytes(name, (6, 512)) == data.nbytes


@pytest.mark.parametrize("name", HALVES)
def test_one_block_at_an_odd_address_decodes_as_any_other(name):
    blocks = random_blocks(name, 1, seed=2)
    odd = torch.cat([torch.zeros(1, dtype=torch.uint8), torch.from_numpy(blocks).flatten()])[1:]
    assert odd.storage_offset() == 1
    shape = (TYPES[name].weights,)
    assert torch.equal(bits(dequantize(name, odd, shape)), bits(theirs(name, blocks)))


@pytest.mark.parametrize("name", ["Q4_K", "Q5_0", "Q6_K", "IQ2_XXS", "IQ4_XS", "MXFP4", "BF16"])
def test_shapes_strides_and_pieces_make_no_difference(name, monkeypatch):
    weights, size = TYPES[name].weights, TYPES[name].bytes
    blocks = random_blocks(name, 24, seed=3)
    whole, want = torch.from_numpy(blocks), theirs(name, blocks)
    monkeypatch.setattr(ggml, "CHUNK", 5 * max(weights, size))  # five at a time, of which the last are fewer
    for shape in [(24 * weights,), (24, weights), (2, 3, 4 * weights), (1, 24, 1, weights), (24 * weights, 1)]:
        got = dequantize(name, whole, shape)
        assert got.shape == shape and torch.equal(bits(got), bits(want.reshape(shape)))
    for data in (
        whole.flatten(),
        whole.reshape(4, -1),
        whole.t().contiguous().t(),
        torch.cat([whole, whole], 1)[:, :size],
    ):
        assert torch.equal(bits(dequantize(name, data, want.shape)), bits(want))
    half = dequantize(name, whole, want.shape, torch.bfloat16)
    assert torch.equal(half, torch.from_numpy(want).bfloat16())


@pytest.mark.parametrize("name", HALVES)
def test_a_hosts_default_dtype_and_device_change_nothing(name):
    blocks = random_blocks(name, 50, seed=6)
    want = theirs(name, blocks)
    ggml._grid.cache_clear()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            got = dequantize(name, torch.from_numpy(blocks), want.shape)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(bits(got), bits(want))


def test_the_result_never_shares_memory_with_the_file():
    data = torch.zeros(64, dtype=torch.uint8)
    assert dequantize("F32", data, (16,)).data_ptr() != data.data_ptr()


def test_integers_and_doubles_are_read_too():
    for name, dtype in {"I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64}.items():
        numbers = torch.tensor([[-5, 0, 117]], dtype=dtype)
        assert dequantize(name, numbers.view(torch.uint8), (1, 3)).tolist() == [[-5, 0, 117]]
    assert dequantize("F64", torch.tensor([0.5, -3]).double().view(torch.uint8), (2,)).tolist() == [0.5, -3]


def test_a_tensor_of_no_weights_is_no_special_case():
    assert dequantize("Q4_K", torch.empty(0, dtype=torch.uint8), (0, 256)).shape == (0, 256)
    assert quantize_q8_0(torch.empty(0, 64)).shape == (0, 68)


def test_a_shape_that_is_not_whole_blocks_is_refused():
    assert n_bytes("Q6_K", (3, 512)) == 3 * 2 * 210
    assert n_bytes("F16", ()) == 2
    with pytest.raises(ValueError, match=r"\(256, 100\) is not a multiple of 256, the block of Q4_K"):
        n_bytes("Q4_K", (256, 100))
    with pytest.raises(ValueError, match=r"144 bytes .* do not make Q4_K weights of the shape \(2, 256\)"):
        dequantize("Q4_K", torch.zeros(144, dtype=torch.uint8), (2, 256))
    with pytest.raises(ValueError, match="multiple of 32"):
        quantize_q8_0(torch.zeros(2, 33))


def test_the_iq_types_say_what_they_need(monkeypatch):
    ggml._grid.cache_clear()
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ImportError, match=r"IQ3_S .* pip install gguf"):
        dequantize("IQ3_S", torch.zeros(110, dtype=torch.uint8), (256,))
    dequantize("IQ4_XS", torch.zeros(136, dtype=torch.uint8), (256,))  # has its sixteen values in the table's own file


def test_tables_made_in_inference_mode_serve_outside_it():
    ggml._grid.cache_clear()
    with torch.inference_mode():
        dequantize("IQ2_S", torch.zeros(82, dtype=torch.uint8), (256,))
    weights = dequantize("IQ2_S", torch.zeros(82, dtype=torch.uint8), (256,))
    x = torch.ones(256, requires_grad=True)
    (x * weights).sum().backward()
    assert torch.equal(x.grad, weights)


@pytest.mark.parametrize("shape", [(32,), (7, 96), (2, 3, 64), (1, 1, 1, 32)])
def test_q8_0_is_quantised_bit_for_bit(shape):
    random = np.random.default_rng(4)
    weights = random.standard_normal(shape).astype(np.float32) * 10 ** random.uniform(-6, 4, shape).astype(np.float32)
    assert_quantised_as_theirs(weights)


def test_q8_0_rounds_halves_away_from_zero_and_knows_zeros():
    weights = np.zeros((5, 64), np.float32)
    weights[1, 3] = -0.5
    # The largest makes the step 1, so that the halves are exact.
    weights[2, :8] = [127, 0.5, -0.5, 1.5, 2.5, -2.5, 0.49999997, -126.5]
    weights[3, 40:44] = [1e-30, -1e-30, 3e-31, 0]
    weights[4] = np.linspace(-70000, 70000, 64)
    assert_quantised_as_theirs(weights)
    assert not quantize_q8_0(torch.zeros(64)).any()


def test_q8_0_takes_what_is_not_contiguous_and_not_float32(monkeypatch):
    weights = torch.randn(64, 33, generator=torch.Generator().manual_seed(5)).bfloat16().t()
    monkeypatch.setattr(ggml, "CHUNK", 7 * 34)
    want = gguf.quants.quantize(weights.float().numpy(), code("Q8_0"))
    assert torch.equal(quantize_q8_0(weights), torch.from_numpy(want))


def assert_quantised_as_theirs(weights):
    want = torch.from_numpy(gguf.quants.quantize(weights, code("Q8_0")))
    got = quantize_q8_0(torch.from_numpy(weights))
    assert got.shape == want.shape and torch.equal(got, want)
