"""The tiles that the kernels are shipped with: none spills registers on the GPUs it is shipped for, by the compiler's own account."""

from typing import NamedTuple

import triton


class Tile(NamedTuple):
    """How a kernel is cut: queries and keys to a tile, warps to a program, stages of the pipeline that loads ahead."""

    block_q: int
    block_k: int
    warps: int
    stages: int


# (kernel, bits of a number, width of a head up to) -> tiles, the likely best first. "9.0" holds for 9.0 and 10.x, whose programs may
# take 227 KiB of shared memory, "8.0" for other GPUs from 8.0 on: 99 KiB are enough for all of its tiles.
TILES = {
    "9.0": {
        ("forward", 16, 64): [Tile(128, 128, 8, 2), Tile(128, 64, 4, 3), Tile(128, 64, 8, 3)],
        ("forward", 16, 128): [Tile(128, 128, 8, 2), Tile(128, 64, 8, 3), Tile(64, 64, 4, 3)],
        ("forward", 16, 256): [Tile(128, 32, 8, 2), Tile(64, 64, 8, 2)],
        ("dkdv", 16, 64): [Tile(64, 128, 8, 2), Tile(64, 64, 4, 2)],
        ("dkdv", 16, 128): [Tile(32, 128, 8, 2), Tile(64, 64, 8, 2)],
        ("dkdv", 16, 256): [Tile(32, 32, 8, 2)],           # 64 keys spill; 32 are too few for HGMMA, and use HMMA
        ("dq", 16, 64): [Tile(128, 128, 8, 2), Tile(128, 64, 8, 2), Tile(64, 64, 4, 2)],
        ("dq", 16, 128): [Tile(128, 64, 8, 2), Tile(64, 64, 4, 2)],
        ("dq", 16, 256): [Tile(64, 32, 8, 2)],
        ("dkdv", 32, 256): [Tile(32, 16, 8, 1)],
    },
    "8.0": {
        ("forward", 16, 64): [Tile(128, 64, 8, 2)],
        ("forward", 16, 128): [Tile(128, 64, 8, 3), Tile(128, 32, 8, 2)],
        ("forward", 16, 256): [Tile(64, 32, 8, 2)],
        ("dkdv", 16, 64): [Tile(64, 128, 8, 2), Tile(64, 64, 4, 3)],
        ("dkdv", 16, 128): [Tile(64, 64, 8, 2), Tile(32, 64, 8, 2)],
        ("dkdv", 16, 256): [Tile(16, 64, 8, 2), Tile(32, 32, 8, 1)],
        ("dq", 16, 64): [Tile(128, 64, 8, 2), Tile(64, 64, 8, 2)],
        ("dq", 16, 128): [Tile(128, 32, 8, 2), Tile(64, 64, 8, 2)],
        ("dq", 16, 256): [Tile(64, 32, 8, 1)],
    },
}
EXACT = {  # float32, multiplied without matrix units, on every GPU that TILES does not name for it
    ("forward", 32, 64): [Tile(32, 32, 8, 1)],
    ("forward", 32, 128): [Tile(32, 16, 8, 2), Tile(16, 16, 8, 1)],
    ("forward", 32, 256): [Tile(32, 16, 8, 1)],
    ("dkdv", 32, 64): [Tile(32, 32, 8, 1), Tile(16, 32, 4, 1)],
    ("dkdv", 32, 128): [Tile(16, 32, 8, 1)],
    ("dkdv", 32, 256): [Tile(16, 16, 4, 1)],
    ("dq", 32, 64): [Tile(32, 32, 4, 1)],
    ("dq", 32, 128): [Tile(32, 16, 8, 1)],
    ("dq", 32, 256): [Tile(32, 16, 8, 1)],
}


# Where the same tile spills in a block-sparse kernel, which holds the walk's numbers too.
IN_BLOCKS = {
    ("9.0", "forward", 16, 64): [Tile(128, 128, 8, 2), Tile(128, 64, 8, 3)],
    ("9.0", "dkdv", 16, 128): [Tile(32, 128, 8, 2)],
    ("9.0", "dkdv", 32, 256): [Tile(16, 16, 4, 1)],
    ("9.0", "dq", 32, 256): [Tile(16, 16, 4, 1)],
    ("8.0", "forward", 16, 128): [Tile(128, 32, 8, 2)],
    ("8.0", "dkdv", 16, 64): [Tile(32, 64, 8, 2), Tile(32, 64, 4, 1)],
    ("8.0", "dkdv", 16, 128): [Tile(32, 64, 8, 2)],
    ("8.0", "dq", 16, 64): [Tile(128, 64, 8, 2), Tile(64, 32, 8, 2)],
    ("8.0", "dq", 16, 128): [Tile(64, 64, 8, 2)],
    ("8.0", "forward", 32, 64): [Tile(32, 32, 8, 1), Tile(32, 16, 4, 1)],
    ("8.0", "forward", 32, 256): [Tile(32, 16, 4, 1)],
    ("8.0", "dq", 32, 256): [Tile(32, 16, 4, 1)],
}
LISTS = dict.fromkeys(("first", "partial", "blocks", "pattern", "order"), "*i32") | {"bits": "*u8"}


def shipped(kernel: str, capability: tuple[int, int], bits: int, width: int) -> list[Tile]:
    """The tiles that a kernel may be launched with, the likely best first; on a GPU they are timed, and the fastest stays.

    Parameters
    ----------
    kernel : {"forward", "dkdv", "dq"}
        Which of the kernels of attention.
    capability : (int, int)
        Compute capability of the GPU, from (8, 0) on.
    bits : {16, 32}
        Bits of a number.
    width : int
        The larger of dim_head and dim_v, at most 256.

    Returns
    -------
    tiles : list of Tile

    Raises
    ------
    ValueError
        If the GPU is older than 8.0.
    """
    if tuple(capability) < (8, 0):
        raise ValueError(f"shipped: capability is {capability[0]}.{capability[1]}, expected 8.0 or higher")
    return (EXACT | TILES[_family(capability)])[kernel, bits, _up_to(width)]


def shipped_for_blocks(kernel: str, capability: tuple[int, int], bits: int, width: int, block_size: int) -> list[Tile]:
    """The tiles of the block-sparse kernels: of those of `shipped` the ones that divide a block; if none does, cut to what does.

    Parameters
    ----------
    kernel, capability, bits, width
        As for `shipped`.
    block_size : int
        Side of a block, a multiple of 16.

    Returns
    -------
    tiles : list of Tile
        Without repetitions.

    Raises
    ------
    ValueError
        If the GPU is older than 8.0, or the block is no multiple of 16.
    """
    if block_size < 16 or block_size % 16:
        raise ValueError(f"shipped_for_blocks: block_size is {block_size}, expected a multiple of 16")
    fits = block_size & -block_size                          # the largest power of two that divides it
    tiles = IN_BLOCKS.get((_family(capability), kernel, bits, _up_to(width)), shipped(kernel, capability, bits, width))
    if whole := [tile for tile in tiles if max(tile.block_q, tile.block_k) <= fits]:
        return whole
    cut = [tile._replace(block_q=min(tile.block_q, fits), block_k=min(tile.block_k, fits)) for tile in tiles]
    small = 64 if width <= 64 else 32                        # a tile cut down to this keeps no more than 4 warps busy
    return list(dict.fromkeys(tile._replace(warps=4) if max(tile.block_q, tile.block_k) <= small else tile for tile in cut))


def _family(capability):
    """Which table holds for a GPU."""
    return "9.0" if capability[0] in (9, 10) else "8.0"


def _up_to(width):
    """The width that a table names for this one."""
    return next(limit for limit in (64, 128, 256) if width <= limit)


def constants(dim: int, dim_v: int) -> dict[str, int | str]:
    """The constants of a kernel that follow from the width of a head.

    Parameters
    ----------
    dim, dim_v : int
        Width of queries and keys, and of values.

    Returns
    -------
    constants : dict
        DIM and DIM_V as they are; BLOCK_D and BLOCK_V, the power of two they fit into, at least 16, the least that is multiplied at
        once; PRECISION "ieee", which keeps float32 from being rounded to TF32.
    """
    block_d, block_v = (max(16, triton.next_power_of_2(size)) for size in (dim, dim_v))
    return {"DIM": dim, "DIM_V": dim_v, "BLOCK_D": block_d, "BLOCK_V": block_v, "PRECISION": "ieee"}


def compile_arguments(
    kernel: triton.JITFunction, tile: Tile, dtype: str = "bf16", dim: int = 64, causal: bool = False, block_size: int = 128,
) -> dict[str, object]:
    """What Triton's compiler must be told to compile one of attention's kernels as it is launched on contiguous tensors.

    Parameters
    ----------
    kernel : triton.JITFunction
        `forward_kernel`, `dkdv_kernel` or `dq_kernel`, or the one of `attnlib.kernels.blocks` like it.
    tile : Tile
        Its tile.
    dtype : {"fp16", "bf16", "fp32"}
        Of q, k and v.
    dim : int
        Width of a head.
    causal : bool
        Which of the two variants.
    block_size : int
        Side of a block, for the block-sparse kernels.

    Returns
    -------
    arguments : dict
        `signature`, `constexprs` and `attrs` for `triton.compiler.ASTSource`, and `num_warps` and `num_stages`.
    """
    known = {**constants(dim, dim), "CAUSAL": causal, "BLOCK_Q": tile.block_q, "BLOCK_K": tile.block_k, "BLOCK": block_size}
    signature, constexprs, attrs = {}, {}, {}
    for i, name in enumerate(kernel.arg_names):
        if name in known:
            signature[name], constexprs[name] = "constexpr", known[name]
        elif name.endswith("strides"):                       # of a tensor whose last axis is contiguous: (…, …, …, 1)
            signature[name], constexprs[i, 3] = ("i32", "i32", "i32", "constexpr"), 1
            attrs.update({(i, axis): [["tt.divisibility", 16]] for axis in range(3)})
        elif name in ("heads", "kv_heads", "group", "seq_q", "seq_k", "map_of"):
            signature[name] = "i32"
        elif name == "scale":
            signature[name] = "fp32"
        else:
            signature[name] = "*fp32" if name in ("lse2", "delta") else LISTS[name] if name in LISTS else f"*{dtype}"
            attrs[i,] = [["tt.divisibility", 16]]
    return {"signature": signature, "constexprs": constexprs, "attrs": attrs, "num_warps": tile.warps, "num_stages": tile.stages}
