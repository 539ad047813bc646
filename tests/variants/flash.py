"""FlashAttention in torch, with masks as arrays and as predicates; tiles of a size that the tests' lengths cut badly."""

import numpy as np
import torch

from attnlib import flash, masks
from attnlib.flash import _tiles
from tests.contracts import Variant, torch_variant
from tests.variants.sparse import bad_calls


def in_small_tiles(function, tile_q=3, tile_k=2):
    """The same function with tiles so small that a test's few tokens are several."""
    def run(*args, **kwargs):
        sizes = _tiles.TILE_Q, _tiles.TILE_K, _tiles.BACK_Q, _tiles.BACK_K
        _tiles.TILE_Q, _tiles.TILE_K, _tiles.BACK_Q, _tiles.BACK_K = tile_q, tile_k, tile_k, tile_q
        try:
            return function(*args, **kwargs)
        finally:
            _tiles.TILE_Q, _tiles.TILE_K, _tiles.BACK_Q, _tiles.BACK_K = sizes
    return run


def attend(q, k, v, mask=None):
    return flash.flash_attention(q, k, v, mask=mask), None


WRONG = bad_calls(flash.flash_attention, {}, [
    ("mask", torch.zeros(5, 7), "float32"), ("mask", torch.zeros(5, 5, dtype=torch.bool), "(5, 5)"),
    ("mask", torch.zeros(4, 1, 5, 7, dtype=torch.bool), "(4,)"), ("mask", torch.ones(5, 7, dtype=torch.bool, device="meta"), "meta"),
    ("mask", [[True]], "list"), ("mask", masks.padding(np.array([1, 2, 3])), "3 sequences")])


def small(name, **about):
    """A variant that runs, and goes backward, in small tiles."""
    whole = torch_variant(name, attend, **about)
    return Variant(**{**vars(whole), "run": in_small_tiles(whole.run), "gradients": in_small_tiles(whole.gradients)})


def by_predicate(name, **about):
    """A variant that hands over the predicate itself."""
    def run(q, k, v, predicate):
        out = flash.flash_attention(*(torch.from_numpy(each) for each in (q, k, v)), mask=predicate)
        return out.numpy(), None

    def gradients(q, k, v, predicate, d_out):
        leaves = [torch.from_numpy(each).requires_grad_() for each in (q, k, v)]
        out = flash.flash_attention(*leaves, mask=predicate)
        return [each.numpy() for each in torch.autograd.grad(out, leaves, torch.from_numpy(d_out))]

    return Variant(name, in_small_tiles(run), gradients=in_small_tiles(gradients), bad_calls=WRONG, **about)


VARIANTS = [
    small("flash.flash_attention", bad_calls=WRONG),
    small("flash.flash_attention (grouped)", heads=(6, 3), bad_calls=WRONG),
    by_predicate("flash.flash_attention (predicates)", heads=(6, 3)),
    torch_variant("flash.flash_attention (one tile)", attend, heads=(3, 1), bad_calls=WRONG),
]
