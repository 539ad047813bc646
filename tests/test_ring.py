"""Ring attention in several processes: exact, forward and backward; bytes sent; planted mistakes; a hang fails in time."""

import contextlib
import datetime
import functools
import os
import time
import types

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.functional import scaled_dot_product_attention as sdpa

from attnlib import costs, measure, ring
from attnlib.flash import flash_attention, merge_partial
from attnlib.ring import _rounds, placing

torch.set_num_threads(1)

SECONDS = 60  # for all cases of one group of processes, which take about 5; longer than that is a hang
CASES = {  # leading axes, heads, kv_heads, seq_q, seq_k, dim_head, dim_v, causal, zigzag
    "full": ((2,), 2, 2, 16, 16, 8, 8, False, True),
    "more keys than queries": ((1,), 4, 2, 8, 24, 5, 3, False, True),
    "causal, zigzag": ((2,), 3, 3, 24, 24, 8, 8, True, True),
    "causal, in order": ((2,), 3, 3, 24, 24, 8, 8, True, False),
    "grouped, widths differ": ((2,), 6, 2, 40, 40, 7, 5, True, True),
    "one token a stretch": ((1,), 2, 1, 8, 8, 4, 4, True, True),
    "one token a rank": ((1,), 2, 1, 4, 4, 4, 4, True, False),
    "no batch": ((), 2, 2, 16, 16, 8, 8, True, True),
    "two leading axes": ((2, 3), 2, 1, 16, 16, 4, 4, True, True),
    "several tiles": ((1,), 1, 1, 1200, 1200, 8, 8, True, True),
}
ANY = CASES["grouped, widths differ"]


def draw(case, dtype=torch.float64):
    """q, k, v and d_out of a whole sequence, the same in every process."""
    lead, heads, kv_heads, seq_q, seq_k, dim_head, dim_v, *_ = case
    generator = torch.Generator().manual_seed(0)
    sizes = (heads, seq_q, dim_head), (kv_heads, seq_k, dim_head), (kv_heads, seq_k, dim_v), (heads, seq_q, dim_v)
    return [torch.randn(*lead, *size, generator=generator, dtype=torch.float64).to(dtype) for size in sizes]


def split(case, x, ranks):
    return ring.zigzag_split(x, ranks) if case[-2] and case[-1] else list(x.chunk(ranks, -2))


def joined(case, pieces):
    return ring.zigzag_merge(pieces) if case[-2] and case[-1] else torch.cat(pieces, -2)


def my_part(rank, ranks, case, dtype=torch.float64, factor=1, group=None, zigzag=None):
    """(out, d_q, d_k, d_v) of this rank, and what it sent forward and in all, as the library counts and as the wrapper below."""
    q, k, v, d_out = (split(case, x, ranks)[rank] for x in draw(case, dtype))
    leaves = [x.clone().requires_grad_() for x in (factor * q, k, v)]
    with ring.count_sent() as counted, watched() as seen:
        out = ring.ring_attention(*leaves, causal=case[-2], zigzag=case[-1] if zigzag is None else zigzag, group=group)
        forward = dict(counted), dict(seen)
        gradients = torch.autograd.grad(out, leaves, d_out)
    return [out.detach(), *gradients], (*forward, dict(counted), dict(seen))


@contextlib.contextmanager
def watched():
    """Bytes handed to the backend, told apart from what the library says."""
    seen, original = {"messages": 0, "bytes": 0}, dist.batch_isend_irecv

    def watching(operations):
        sends = [each.tensor.nbytes for each in operations if each.op is dist.isend]
        seen["messages"] += len(sends)
        seen["bytes"] += sum(sends)
        return original(operations)

    dist.batch_isend_irecv = watching
    try:
        yield seen
    finally:
        dist.batch_isend_irecv = original


def process(rank, ranks, work, place):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{place}/meeting", rank=rank, world_size=ranks,
                            timeout=datetime.timedelta(seconds=SECONDS))
    torch.save(work(rank, ranks), f"{place}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def launch(ranks, work, place, seconds=SECONDS):
    """What work(rank, ranks) returns in each of `ranks` processes; a hang is ended and fails."""
    place.mkdir()
    context = mp.start_processes(process, (ranks, work, place), nprocs=ranks, join=False, start_method="spawn")
    try:
        stop = time.monotonic() + seconds
        while not context.join(timeout=0.1):                 # raises if a process failed
            if time.monotonic() > stop:
                raise TimeoutError(f"{ranks} processes were not done after {seconds} seconds")
    finally:
        for each in context.processes:
            each.kill()
    return [torch.load(place / f"{rank}.pt") for rank in range(ranks)]


# What the processes do: functions of this module, which each of them imports.

def all_cases(rank, ranks):
    found = {name: my_part(rank, ranks, case) for name, case in CASES.items()}
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        found[dtype] = my_part(rank, ranks, ANY, dtype)
    found["large scores"] = my_part(rank, ranks, ANY, factor=3e4)
    found["order"] = events(rank, ranks)
    found["memory"] = held(ranks)
    if ranks == 4:
        found["planted"] = planted(rank, ranks)
    if ranks == 4:                                           # two rings of two, whose numbers are not those of all processes
        groups = [dist.new_group([0, 2]), dist.new_group([3, 1])]
        mine = rank % 2
        found["group"] = mine, dist.get_rank(groups[mine]), my_part(dist.get_rank(groups[mine]), 2, ANY, group=groups[mine])
        try:
            my_part(0, 2, ANY, group=groups[1 - mine])
        except (RuntimeError, ValueError) as refusal:
            found["stranger"] = str(refusal)
    return found


def events(rank, ranks):
    """The order in which messages are sent off and keys are computed with."""
    seen, send, attend = [], dist.batch_isend_irecv, _rounds.flash_attention
    dist.batch_isend_irecv = lambda operations: seen.append("send") or send(operations)
    _rounds.flash_attention = lambda *args, **options: seen.append("attend") or attend(*args, **options)
    try:
        with torch.no_grad():
            ring.ring_attention(*(x.chunk(ranks, -2)[rank] for x in draw(ANY)[:3]))
    finally:
        dist.batch_isend_irecv, _rounds.flash_attention = send, attend
    return seen


def held(ranks):
    """The most bytes alive at a time, forward, with 8 queries and 2 MiB of keys and values a rank."""
    q, k, v = torch.zeros(1, 1, 8, 64), torch.zeros(1, 1, 4096, 64), torch.zeros(1, 1, 4096, 64)
    with torch.no_grad():
        return measure.allocated_bytes(lambda: ring.ring_attention(q, k, v))


def mean_of(out_a, lse_a, out_b, lse_b):
    share = (lse_b > -torch.inf).to(out_b.dtype).unsqueeze(-1) * torch.where(lse_a > -torch.inf, 0.5, 1.0).unsqueeze(-1)
    return torch.lerp(out_a, out_b, share), torch.logaddexp(lse_a, lse_b)


def forgotten_lse(out_a, lse_a, out_b, lse_b):
    out, _ = merge_partial(out_a, lse_a, out_b, lse_b)
    return out, torch.where(lse_b > -torch.inf, lse_b, lse_a)


def everything_seen(mine, theirs, causal=True):
    return [(i, j, False) for i in range(len(mine)) for j in range(len(theirs))]


def diagonal_unmasked(mine, theirs, causal=True):
    return [(i, j, False) for i, j, _ in RIGHT_PAIRS(mine, theirs, causal)]


class Forgetful(_rounds.Ring):
    """Keys and values go round, their gradients do not."""

    def go_round(self, *tensors):
        yield from RIGHT_RING(self.group).go_round(*tensors)

    def pass_on(self, *tensors):
        return types.SimpleNamespace(wait=lambda: [torch.zeros_like(x) for x in tensors])


class WrongWay(_rounds.Ring):
    """A ring that sends to the rank before: with two ranks the same, with more another's keys arrive."""

    def pass_on(self, *tensors):
        tensors = [x.contiguous() for x in tensors]
        incoming = [torch.empty_like(x) for x in tensors]
        sends = [dist.P2POp(dist.isend, x, group_peer=(self.rank - 1) % self.ranks) for x in tensors]
        receives = [dist.P2POp(dist.irecv, x, group_peer=(self.rank + 1) % self.ranks) for x in incoming]
        return _rounds.Coming(dist.batch_isend_irecv(sends + receives), tensors, incoming)


RIGHT_PAIRS, RIGHT_RING = placing.chunk_pairs, _rounds.Ring
PLANTS = {  # name -> what it replaces, by what
    "plain mean of the parts": (_rounds, "merge_partial", mean_of),
    "the lse of the last part": (_rounds, "merge_partial", forgotten_lse),
    "no causal mask at all": (placing, "chunk_pairs", everything_seen),
    "no mask on the diagonal": (placing, "chunk_pairs", diagonal_unmasked),
    "backward with natural lse": (_rounds, "LOG2E", 1.0),
    "gradients of the others never come home": (_rounds, "Ring", Forgetful),
    "the ring turns the wrong way": (_rounds, "Ring", WrongWay),
}


def planted(rank, ranks):
    found = {}
    for name, (where, what, instead) in PLANTS.items():
        original = getattr(where, what)
        setattr(where, what, instead)
        try:
            found[name] = my_part(rank, ranks, ANY)
        finally:
            setattr(where, what, original)
    found["in order, taken for zigzag"] = my_part(rank, ranks, (*ANY[:-1], False), zigzag=True)
    found["nothing wrong"] = my_part(rank, ranks, ANY)
    return found


def hang(rank, ranks):
    if rank == 0:
        dist.recv(torch.zeros(1), src=1)                     # nobody sends
    return None


def fail(rank, ranks):
    if rank == 1:
        raise ArithmeticError("a mistake in one process")
    return None


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What all processes found, by how many they are; launched once."""
    place = tmp_path_factory.mktemp("ring")
    return functools.cache(lambda ranks: launch(ranks, all_cases, place / str(ranks)))


@pytest.fixture(params=[1, 2, 4])
def results(request, runs):
    return request.param, runs(request.param)


def truth(case, factor=1, dtype=torch.float64):
    """The four results of the whole sequence in one process, in float64."""
    q, k, v, d_out = (x.double() for x in draw(case, dtype))
    leaves = [x.requires_grad_() for x in (factor * q, k, v)]
    out = flash_attention(*leaves, causal=case[-2])
    return [out.detach(), *torch.autograd.grad(out, leaves, d_out)]


def assert_same(case, parts, factor=1):
    for pieces, expected in zip(zip(*parts, strict=True), truth(case, factor), strict=True):
        got = joined(case, list(pieces))
        assert got.isfinite().all()
        # sums of at most 1200 products of numbers near 1 in float64, taken in another order
        assert (got - expected).abs().max() <= 1e-12 * max(1, expected.abs().max())


@pytest.mark.parametrize("name", CASES)
def test_every_rank_gets_its_piece_of_attention_over_all(results, name):
    _, found = results
    assert_same(CASES[name], [each[name][0] for each in found])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_errs_at_most_twice_as_much_as_pytorch(results, dtype):
    """All results against the float64 truth of the same inputs; the floor is one rounding of the largest entry."""
    _, found = results
    q, k, v, d_out = draw(ANY, dtype)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    theirs = sdpa(*leaves, is_causal=True, enable_gqa=True)
    theirs = [theirs, *torch.autograd.grad(theirs, leaves, d_out)]
    for pieces, their, expected in zip(zip(*(each[dtype][0] for each in found), strict=True), theirs, truth(ANY, dtype=dtype), strict=True):
        got = joined(ANY, list(pieces))
        assert got.dtype == dtype
        error, bar = ((x.double() - expected).abs().max() for x in (got, their))
        assert error <= 2 * bar + torch.finfo(dtype).eps * expected.abs().max()


def test_scores_of_ten_thousands_overflow_nothing(results):
    _, found = results
    parts = [each["large scores"][0] for each in found]
    out, expected = joined(ANY, [part[0] for part in parts]), truth(ANY, 3e4)[0]
    assert all(x.isfinite().all() for part in parts for x in part)
    # scores near 1e5 hold 1e-11 in float64, and so do the weights
    assert (out - expected).abs().max() < 1e-9


@pytest.mark.parametrize("name", [*CASES, torch.float32, torch.float16])
def test_bytes_sent_are_those_of_the_formula(results, name):
    ranks, found = results
    lead, _, kv_heads, _, seq_k, dim_head, dim_v, *_ = CASES.get(name, ANY)
    size = name.itemsize if name in (torch.float32, torch.float16) else 8
    forward, backward = costs.ring_bytes(ranks, kv_heads, seq_k, dim_head, dim_v, batch=torch.Size(lead).numel(), bytes_per_number=size,
                                         bytes_per_gradient=max(4, size))
    for each in found:
        counted_forward, seen_forward, counted, seen = each[name][1]
        assert counted_forward == seen_forward == {"messages": 2 * (ranks - 1), "bytes": forward}
        assert counted == seen == {"messages": 6 * (ranks - 1), "bytes": forward + backward}


def test_keys_are_under_way_before_anything_is_computed(results):
    ranks, found = results
    for each in found:
        assert each["order"] == ["send", "attend"] * (ranks - 1) + ["attend"]


def test_a_rank_holds_two_pieces_beside_its_own(runs):
    """The one at hand and the one under way; a tile of 8 by 1024 scores and a few small results are less than a quarter of one."""
    for each in runs(4):
        assert 2 <= each["memory"] / 2**21 < 2.25


def test_rings_within_a_group(runs):
    found = runs(4)
    for number in (0, 1):
        parts = {at: part for group, at, (part, _) in (each["group"] for each in found) if group == number}
        assert_same(ANY, [parts[0], parts[1]])
    assert all("group" in each["stranger"] and "expected" in each["stranger"] for each in found)


@pytest.fixture
def mistakes(runs):
    """In four processes: of two, each is the other's next and the one before."""
    return [each["planted"] for each in runs(4)]


@pytest.mark.parametrize("name", [*PLANTS, "in order, taken for zigzag"])
def test_a_planted_mistake_is_caught(mistakes, name):
    case = (*ANY[:-1], False) if name == "in order, taken for zigzag" else ANY
    with pytest.raises(AssertionError):
        assert_same(case, [each[name][0] for each in mistakes])


def test_without_a_mistake_nothing_is_caught(mistakes):
    assert_same(ANY, [each["nothing wrong"][0] for each in mistakes])


def test_a_hang_fails_in_time(tmp_path):
    start = time.monotonic()
    with pytest.raises(TimeoutError, match="2 processes"):
        launch(2, hang, tmp_path / "place", seconds=6)
    assert time.monotonic() - start < 20


def test_an_error_in_one_process_fails(tmp_path):
    with pytest.raises(mp.ProcessRaisedException, match="a mistake in one process"):
        launch(2, fail, tmp_path / "place")


def test_torchrun_runs_a_program_and_says_what_failed(tmp_path):
    program = """
import os, sys, time
if sys.argv and int(os.environ["RANK"]) == 1:
    print(os.environ["WORLD_SIZE"], flush=True)
    raise ArithmeticError("a mistake") if WHAT == "fail" else SystemExit(0)
if WHAT == "hang":
    open(PLACE, "w").write(str(os.getpid()))
    time.sleep(100)
"""
    assert ring.torchrun(program.replace("WHAT", "'print'"), 2) == "2\n"
    with pytest.raises(RuntimeError, match="ArithmeticError: a mistake"):
        ring.torchrun(program.replace("WHAT", "'fail'"), 2)
    start = time.monotonic()
    with pytest.raises(RuntimeError, match="2 processes were not done after 15 seconds"):
        ring.torchrun(program.replace("WHAT", "'hang'").replace("PLACE", repr(str(tmp_path / "pid"))), 2, seconds=15)
    assert time.monotonic() - start < 60
    with pytest.raises(ProcessLookupError):                  # and leaves nobody behind
        os.kill(int((tmp_path / "pid").read_text()), 0)


# In one process.

@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_zigzag_splits_and_merges(ranks, axis):
    x = torch.randn(30 * ranks, 2 * ranks, 4 * ranks)
    pieces = ring.zigzag_split(x, ranks, axis)
    assert len(pieces) == ranks and all(piece.shape[axis] * ranks == x.shape[axis] for piece in pieces)
    assert torch.equal(ring.zigzag_merge(pieces, axis), x)


def test_zigzag_pairs_the_first_with_the_last():
    assert [piece.tolist() for piece in ring.zigzag_split(torch.arange(12), 3, axis=0)] == [[0, 1, 10, 11], [2, 3, 8, 9], [4, 5, 6, 7]]
    assert torch.equal(ring.zigzag_split(torch.arange(8).reshape(8, 1), 2)[1], torch.tensor([[2], [3], [4], [5]]))


@pytest.mark.parametrize("zigzag", [False, True])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_the_steps_hold_every_allowed_pair_once(ranks, zigzag):
    """The plan and the count of scores against a causal mask, pair by pair."""
    seq = 8 * ranks
    steps, cuts = costs.ring_steps(seq, ranks, zigzag=zigzag), 2 * ranks if zigzag else ranks
    met, place = torch.zeros(seq, seq, dtype=torch.int), torch.arange(seq).chunk(cuts)
    for step in range(ranks):
        for rank in range(ranks):
            mine, theirs = (ring.chunks_of(each, ranks, zigzag) for each in (rank, (rank - step) % ranks))
            before = met.sum()
            for i, j, diagonal in ring.chunk_pairs(mine, theirs):
                tile = torch.ones(seq // cuts, seq // cuts, dtype=torch.int)
                met[place[mine[i]][:, None], place[theirs[j]]] += tile.tril() if diagonal else tile
            assert met.sum() - before == steps[step][rank]
    assert torch.equal(met, torch.ones(seq, seq, dtype=torch.int).tril())
    if zigzag:
        assert all(len(set(each)) == 1 for each in steps)    # everybody is busy, in every step
    assert sum(map(sum, steps)) == costs.causal_pairs(seq)


def test_all_to_all_sends_what_the_formula_says():
    """Tokens of rank a, heads of rank b: counted by hand over 4 ranks."""
    ranks, heads, kv_heads, seq, dim_head, dim_v = 4, 8, 4, 12, 5, 3
    sent = [0] * ranks
    for a in range(ranks):
        for _ in set(range(ranks)) - {a}:
            of_one = seq // ranks
            sent[a] += of_one * (heads // ranks * dim_head + kv_heads // ranks * (dim_head + dim_v))   # q, k, v of the other's heads
            sent[a] += of_one * heads // ranks * dim_v       # and the results of its tokens go home
    assert costs.ulysses_bytes(ranks, heads, seq, dim_head, kv_heads, dim_v, bytes_per_number=2) == (2 * sent[0], 2 * sent[0])
    assert len(set(sent)) == 1
    assert costs.ring_bytes(1, 3, 12, 4) == (0, 0) == costs.ulysses_bytes(1, 3, 12, 4)


def shaped(*sizes, **options):
    return torch.zeros(*sizes, **options)


Q, KV = shaped(1, 4, 6, 8), shaped(1, 2, 6, 8)


@pytest.mark.parametrize(("call", "error", "said"), [
    (lambda: ring.ring_attention(Q, KV, KV), RuntimeError, "ring_attention: no process group, expected"),
    (lambda: ring.ring_attention(Q, shaped(1, 3, 6, 8), shaped(1, 3, 6, 8)), ValueError, "k has shape (1, 3, 6, 8)"),
    (lambda: ring.ring_attention(Q, shaped(1, 2, 6, 7), KV), ValueError, "k has shape (1, 2, 6, 7)"),
    (lambda: ring.ring_attention(Q, KV, shaped(1, 2, 5, 8)), ValueError, "v has shape (1, 2, 5, 8)"),
    (lambda: ring.ring_attention(Q, KV.double(), KV), TypeError, "k has dtype torch.float64"),
    (lambda: ring.ring_attention(Q, KV, KV.to("meta")), ValueError, "v has device meta"),
    (lambda: ring.ring_attention(Q, KV.numpy(), KV), TypeError, "k is of type ndarray"),
    (lambda: ring.ring_attention(Q.int(), KV, KV), TypeError, "q has dtype int32"),
    (lambda: ring.ring_attention(shaped(3, 4, 6, 8), KV, KV), ValueError, "k has leading axes (1,)"),
    (lambda: ring.ring_attention(Q, shaped(1, 2, 8, 8), shaped(1, 2, 8, 8), True), ValueError, "k has 8 tokens"),
    (lambda: ring.ring_attention(Q[:, :, :5], KV[:, :, :5], KV[:, :, :5], True), ValueError, "q has 5 tokens, expected an even"),
    (lambda: ring.zigzag_split(Q, 2), ValueError, "x has 6 tokens, expected a multiple of 2 · ranks = 4"),
    (lambda: ring.zigzag_split(Q, 0), ValueError, "ranks is 0"),
    (lambda: ring.zigzag_split(Q, 1.0), TypeError, "ranks is of type float"),
    (lambda: ring.zigzag_split(Q, 1, 4), ValueError, "axis is 4"),
    (lambda: ring.zigzag_split(Q.numpy(), 1), TypeError, "x is of type ndarray"),
    (lambda: ring.torchrun(None, 2), TypeError, "program is of type NoneType"),
    (lambda: ring.torchrun("", 0), ValueError, "ranks is 0"),
    (lambda: ring.zigzag_merge(Q), TypeError, "pieces is of type Tensor"),
    (lambda: ring.zigzag_merge([]), ValueError, "pieces is empty"),
    (lambda: ring.zigzag_merge([Q, KV]), ValueError, "pieces has shapes (1, 4, 6, 8) and (1, 2, 6, 8)"),
    (lambda: ring.zigzag_merge([Q[:, :, :5]]), ValueError, "has 5 tokens"),
])
def test_wrong_calls(call, error, said):
    with pytest.raises(error) as refusal:
        call()
    assert said in str(refusal.value) and "expected" in str(refusal.value) and len(str(refusal.value)) < 200
