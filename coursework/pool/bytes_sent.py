"""Exercise: what each device of a ring sends for one layer of attention, forward and backward."""

from coursework import case, observe, wrong

TITLE = "What goes round the ring"
CHAPTER = "24_many_devices"
POINTS = 4
GIVEN = ""
TOLERANCE = (0, 0)
RETURNS = ("forward", "backward")
PROMPT = r"""
In ring attention `ranks` devices share a text of `seq` tokens evenly {cite}`liu2023b`. Forward, the keys and values of every device travel
round the ring until every other device has had them. Backward they travel once more, and the gradients of keys and of values too: they start
at the first device after their owner, gather the share of every other device, and go home at the end. Write
`bytes_sent(ranks, kv_heads, seq, dim_head, bytes_per_number, bytes_per_gradient)`, which returns `(forward, backward)`: the bytes that **one**
device sends for one layer and one sequence, as exact Python ints. Keys and values have `kv_heads` heads of width `dim_head` and numbers of
`bytes_per_number` bytes, their gradients numbers of `bytes_per_gradient` bytes. `ranks` divides `seq`; one device alone sends nothing.
"""


def bytes_sent(ranks, kv_heads, seq, dim_head, bytes_per_number, bytes_per_gradient):
    # BEGIN SOLUTION
    piece = 2 * kv_heads * (seq // ranks) * dim_head  # keys and values of one device
    numbers = (ranks - 1) * piece                     # every piece but one comes by
    return numbers * bytes_per_number, numbers * (bytes_per_number + bytes_per_gradient)
    # END SOLUTION


def cases(rng):
    def counted(label, ranks, widths, edge=False, **fixed):
        kv_heads, tokens, dim_head = (int(each) for each in rng.choice((5, 7, 11, 13, 17, 19), size=3, replace=False))
        dims = {"ranks": ranks, "kv_heads": kv_heads, "seq": ranks * tokens, "dim_head": dim_head} | fixed
        return case(label, *dims.values(), *widths, edge=edge, dims=dims)

    yield counted("four devices", 4, (2, 4))
    yield counted("float32 throughout", 6, (4, 4))
    yield counted("two devices", 2, (2, 4))
    yield counted("widths of 3 and 7 bytes", 9, (3, 7))
    yield counted("a long text", 64, (2, 4), seq=64 * 2**22)
    yield counted("one device alone", 1, (2, 4))


def both(numbers, bytes_per_number, bytes_per_gradient):
    return numbers * bytes_per_number, numbers * (bytes_per_number + bytes_per_gradient)


@wrong("You let every piece travel once more than needed: after ranks - 1 messages every device has had it, and one device alone sends nothing.")
def full_circle(ranks, kv_heads, seq, dim_head, bytes_per_number, bytes_per_gradient):
    return both(2 * kv_heads * seq * dim_head, bytes_per_number, bytes_per_gradient)


@wrong("You count one message. A device passes on ranks - 1 pieces: its own, and those of others that come by.")
def one_message(ranks, kv_heads, seq, dim_head, bytes_per_number, bytes_per_gradient):
    return both(2 * kv_heads * (seq // ranks) * dim_head * (ranks > 1), bytes_per_number, bytes_per_gradient)


@wrong("Your message holds the whole text, or you count what all devices send together. One device holds, and passes on, seq / ranks tokens at a "
       "time.")
def whole_text(ranks, kv_heads, seq, dim_head, bytes_per_number, bytes_per_gradient):
    return both((ranks - 1) * 2 * kv_heads * seq * dim_head, bytes_per_number, bytes_per_gradient)


@wrong("You count keys and no values, or values and no keys: half of what travels.")
def keys_only(ranks, kv_heads, seq, dim_head, bytes_per_number, bytes_per_gradient):
    return both((ranks - 1) * kv_heads * (seq // ranks) * dim_head, bytes_per_number, bytes_per_gradient)


@wrong("Forward is right; backward you send the gradients alone. They are computed from scores, and for those keys and values must come by "
       "once more.")
def gradients_alone(ranks, kv_heads, seq, dim_head, bytes_per_number, bytes_per_gradient):
    numbers = (ranks - 1) * 2 * kv_heads * (seq // ranks) * dim_head
    return numbers * bytes_per_number, numbers * bytes_per_gradient


@wrong("Forward is right; backward you send keys and values again, and no gradients. Those of a key are a sum over the queries of all devices.")
def no_gradients(ranks, kv_heads, seq, dim_head, bytes_per_number, bytes_per_gradient):
    numbers = (ranks - 1) * 2 * kv_heads * (seq // ranks) * dim_head
    return numbers * bytes_per_number, numbers * bytes_per_number


@wrong("Your gradients are as narrow as keys and values. They grow on the way, and have a width of their own: `bytes_per_gradient`.")
def narrow_gradients(ranks, kv_heads, seq, dim_head, bytes_per_number, bytes_per_gradient):
    numbers = (ranks - 1) * 2 * kv_heads * (seq // ranks) * dim_head
    return numbers * bytes_per_number, 2 * numbers * bytes_per_number


@wrong("You count numbers; bytes are asked for. How many bytes does each take?")
def numbers_only(ranks, kv_heads, seq, dim_head, bytes_per_number, bytes_per_gradient):
    return both((ranks - 1) * 2 * kv_heads * (seq // ranks) * dim_head, 1, 1)


@wrong("Forward is right; backward the gradients make one message too many: they start at the device after their owner, which adds its own "
       "share when they come home.")
def gradients_full_circle(ranks, kv_heads, seq, dim_head, bytes_per_number, bytes_per_gradient):
    piece = 2 * kv_heads * (seq // ranks) * dim_head
    return (ranks - 1) * piece * bytes_per_number, piece * ((ranks - 1) * bytes_per_number + ranks * bytes_per_gradient)


@wrong("Right, with backward and forward exchanged.")
def exchanged(ranks, kv_heads, seq, dim_head, bytes_per_number, bytes_per_gradient):
    return bytes_sent(ranks, kv_heads, seq, dim_head, bytes_per_number, bytes_per_gradient)[::-1]


@wrong("Your second number is forward and backward together; backward alone is asked for.")
def added_up(ranks, kv_heads, seq, dim_head, bytes_per_number, bytes_per_gradient):
    forward, backward = bytes_sent(ranks, kv_heads, seq, dim_head, bytes_per_number, bytes_per_gradient)
    return forward, forward + backward


@observe
def alone(case, got, want):
    if case.args[0] == 1 and any(got):
        return f"One device alone has nobody to send to; yours sends {max(got)} bytes."


@observe
def which(case, got, want):
    if got[0] == want[0]:
        return f"Forward is right; backward is {got[1] / want[1]:.4g} times what is expected." if want[1] else None
    if want[0] and got[1] * want[0] == want[1] * got[0]:
        return f"Both numbers are {got[0] / want[0]:.4g} times what is expected."
    return f"Forward is {got[0] / want[0]:.4g} times what is expected." if want[0] else None
