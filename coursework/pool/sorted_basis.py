"""Exercise: choose, among all bases that give the same scores, one in which coordinates have an order."""

import numpy as np

from coursework import case, sizes, wrong

TITLE = "A basis in which coordinates do have an order"
CHAPTER = "02_queries_keys_values"
POINTS = 4
PROMPT = r"""
Scores depend on $W_Q$ and $W_K$ only through the product $W_Q W_K^\top$. So the basis is free: choose a good one. Write
`sorted_basis(w_q, w_k)`, both of shape (dim, dim_head) with dim_head ≤ dim, which returns two matrices of the same shapes with the same
product $W_Q W_K^\top$, such that in both the columns are orthogonal to each other, the $m$-th column is as long in the one as in the
other, and lengths fall from left to right. Then coordinate 0 is the direction in which this head compares most strongly. Hint: singular
value decomposition (`np.linalg.svd`) of the product, and share each singular value fairly.
"""
RETURNS = ("the first matrix", "the second matrix")


def sorted_basis(w_q, w_k):
    # BEGIN SOLUTION
    d = w_q.shape[1]
    # strengths fall; all but d of them are zero
    left, strengths, right = np.linalg.svd(w_q @ w_k.T)
    root = np.sqrt(strengths[:d])
    return left[:, :d] * root, right[:d].T * root
    # END SOLUTION


def cases(rng):
    s = sizes(rng, "dim dim_head", 4, 9)
    high, wide = sorted((s.dim, s.dim_head))[::-1]
    dims = {"dim": high, "dim_head": wide}
    yield case("a head", rng.normal(size=(high, wide)), rng.normal(size=(high, wide)), dims=dims)
    yield case("queries much larger than keys", 300 * rng.normal(size=(high, wide)), 0.01 * rng.normal(size=(high, wide)), dims=dims)
    yield case("columns that are nearly parallel", 5 + rng.normal(size=(high, wide)), 5 + rng.normal(size=(high, wide)), dims=dims)
    yield case("a head as wide as the token vectors", rng.normal(size=(wide, wide)), rng.normal(size=(wide, wide)), dims={"dim": wide})
    yield case("a long, narrow head", rng.normal(size=(40, 2)), rng.normal(size=(40, 2)), dims={"dim": 40, "dim_head": 2})
    yield case("width 1", rng.normal(size=(high, 1)), -rng.normal(size=(high, 1)), dims={"dim": high})


def _faulty(got, shape):
    """What is wrong with the result as a thing, before any number is compared."""
    if got is None:
        return "The function returns None. Is there a `return`?"
    if not isinstance(got, tuple | list) or len(got) != 2:
        what = f"{len(got)} results" if isinstance(got, tuple | list) else "one result"
        return f"Your function returns {what}, expected two matrices, separated by a comma."
    for name, w in zip(RETURNS, got, strict=True):
        if not isinstance(w, np.ndarray) or w.dtype.kind not in "biuf":
            complex_ = " Yours holds complex numbers." if isinstance(w, np.ndarray) and w.dtype.kind == "c" else ""
            return f"{name.capitalize()} should be an array of real numbers.{complex_}"
        if w.shape != shape:
            tail = ": yours stands on its side" if w.shape == shape[::-1] else ""
            return f"{name.capitalize()} has shape {w.shape}, expected (dim, dim_head), that is {shape}{tail}."
        if not np.isfinite(w).all():
            return f"{name.capitalize()} holds NaN or infinity."
    return None


def _slant(a):
    """The two columns farthest from a right angle, and the cosine between them."""
    lengths = np.linalg.norm(a, axis=0)
    cosines = np.abs(a.T @ a) / np.maximum(np.outer(lengths, lengths), 1e-300) - np.eye(a.shape[1])
    i, j = np.unravel_index(cosines.argmax(), cosines.shape)
    return int(min(i, j)), int(max(i, j)), cosines[i, j]


def verify(case, got):
    w_q, w_k = case.args
    said = _faulty(got, w_q.shape)
    if said:
        return said
    a, b = (w.astype(float) for w in got)
    with np.errstate(all="ignore"):
        return _compared(a, b, w_q @ w_k.T)


def _compared(a, b, product):
    scale = np.linalg.norm(product)
    off = np.linalg.norm(a @ b.T - product) / scale
    lengths = np.linalg.norm(a, axis=0), np.linalg.norm(b, axis=0)
    tied = "Your columns are at right angles, equally long in both and sorted, but " if _ordered(a, b) else ""
    if not off < 1e-8:
        return _product(a @ b.T, product, off, tied, a.shape[1])
    for name, w in zip(RETURNS, (a, b), strict=True):
        i, j, cosine = _slant(w)
        if cosine > 1e-7:
            return (f"The product is right, but in {name} the columns {i} and {j} are not orthogonal: the cosine of the angle "
                    f"between them is {cosine:.2g}.")
    unlike = np.abs(lengths[0] - lengths[1]) > 1e-7 * (lengths[0] + lengths[1])
    if unlike.any():
        m = int(unlike.argmax())
        ratio = lengths[0] / lengths[1]
        all_alike = f" All of the first matrix's columns are {ratio[0]:.3g} times as long as the second's." if len(ratio) > 1 and np.ptp(
            ratio) < 1e-6 * ratio[0] else ""
        unit = next((f" In {name} every column has length 1: a singular value has gone to one side alone." for name, ls in
                     zip(RETURNS, lengths, strict=True) if np.allclose(ls, 1)), "")
        return (f"Product and right angles are right, but column {m} has length {lengths[0][m]:.3g} in the first matrix and "
                f"{lengths[1][m]:.3g} in the second.{unit or all_alike}")
    rising = np.diff(lengths[0]) > 1e-7 * lengths[0].max()
    if rising.any():
        m = int(rising.argmax())
        whole = " They rise all the way: the weakest direction comes first." if rising.all() and rising.size > 1 else ""
        return (f"All is right but the order: column {m + 1} is longer ({lengths[0][m + 1]:.3g}) than column {m} ({lengths[0][m]:.3g}); lengths "
                f"should fall from left to right.{whole}")
    return None


def _ordered(a, b):
    """Whether columns are orthogonal, of equal lengths, and those fall."""
    lengths = np.linalg.norm(a, axis=0)
    return bool(a.shape[1] > 1 and _slant(a)[2] < 1e-7 and _slant(b)[2] < 1e-7 and np.allclose(lengths, np.linalg.norm(b, axis=0))
                and (np.diff(lengths) < 1e-7 * lengths.max()).all())


def _product(mine, product, off, tied, width):
    """What is wrong with a product that should not have changed."""
    ratio = np.vdot(mine, product) / np.vdot(product, product)
    if off < 1e-3:
        return f"The product W_Q W_Kᵀ is nearly right: off by {off:.1g} of its size. A lower precision, or an added constant, does that."
    if np.allclose(mine, ratio * product) and ratio:
        forms = {"dim_head": width, "√dim_head": width**0.5, "1/√dim_head": width**-0.5, "1/dim_head": 1 / width} if width > 1 else {}
        origin = next((f" (that is {name})" for name, number in forms.items() if np.isclose(ratio, number)), "")
        return f"{tied}{'the' if tied else 'The'} product W_Q W_Kᵀ is {ratio:.4g} times what it was{origin}. It should be the same head."
    if np.allclose(mine, product.T):
        return "The product is W_K W_Qᵀ, the transpose of what it was: your two matrices are exchanged."
    strengths, old = np.linalg.svd(mine, compute_uv=False), np.linalg.svd(product, compute_uv=False)
    where = ""
    if np.allclose(strengths, old, atol=1e-8 * old[0]):
        where = " Its singular values are right, its directions are not."
    elif np.allclose(strengths, np.where(strengths > 1e-8 * strengths[0], 1, 0)):
        where = " Its singular values are all 1 or 0: the strengths have been lost."
    elif np.allclose(strengths, old**2, atol=1e-8 * old[0]**2):
        where = " Its singular values are the squares of what they were."
    elif np.allclose(strengths, np.sqrt(old), atol=1e-6 * old[0]**0.5):
        where = " Its singular values are the roots of what they were."
    return (f"{tied}{'the' if tied else 'The'} product W_Q W_Kᵀ is not what it was (the difference is {off:.2g} times as large as the product "
            f"itself): this would be another head.{where}")


@wrong("Columns of the second matrix have length 1, the first has all of the strength. Each singular value should be shared "
       "fairly between the two.")
def all_to_the_left(w_q, w_k):
    d = w_q.shape[1]
    left, strengths, right = np.linalg.svd(w_q @ w_k.T)
    return left[:, :d] * strengths[:d], right[:d].T


@wrong("The singular values are lost: all your columns have length 1, and the product is another one. How can each of the two matrices get "
       "its share of a singular value?")
def no_strengths(w_q, w_k):
    d = w_q.shape[1]
    left, _, right = np.linalg.svd(w_q @ w_k.T)
    return left[:, :d], right[:d].T


@wrong("Both matrices get the whole of each singular value, so that the product has its square. What has to stand in each, so that the two "
       "multiply to one?")
def both_whole(w_q, w_k):
    d = w_q.shape[1]
    left, strengths, right = np.linalg.svd(w_q @ w_k.T)
    return left[:, :d] * strengths[:d], right[:d].T * strengths[:d]


@wrong("Both matrices get half of each singular value: s/2 times s/2 is not s.")
def halves(w_q, w_k):
    d = w_q.shape[1]
    left, strengths, right = np.linalg.svd(w_q @ w_k.T)
    return left[:, :d] * strengths[:d] / 2, right[:d].T * strengths[:d] / 2


@wrong("You take the first columns of the third result of `svd`. NumPy returns it transposed already: the right singular vectors are its rows.")
def columns_of_right(w_q, w_k):
    d = w_q.shape[1]
    left, strengths, right = np.linalg.svd(w_q @ w_k.T)
    return left[:, :d] * np.sqrt(strengths[:d]), right[:, :d] * np.sqrt(strengths[:d])


@wrong("You decompose w_q and w_k one by one. Each then has columns at right angles, in a basis of its own, and their product is another "
       "head's: it is the product that has to be decomposed.")
def one_by_one(w_q, w_k):
    left_q, strengths_q, _ = np.linalg.svd(w_q, full_matrices=False)
    left_k, strengths_k, _ = np.linalg.svd(w_k, full_matrices=False)
    root = np.sqrt(strengths_q * strengths_k)
    return left_q * root, left_k * root


@wrong("You sort the columns that are there by length. The head stays the same, but these columns are not at right angles to each other, and "
       "no order of them will change that.")
def sorts_columns(w_q, w_k):
    order = np.argsort(-np.linalg.norm(w_q, axis=0) * np.linalg.norm(w_k, axis=0))
    return w_q[:, order], w_k[:, order]


@wrong("All but the order is right: your weakest direction comes first. Lengths should fall from left to right.")
def weakest_first(w_q, w_k):
    a, b = sorted_basis(w_q, w_k)
    return a[:, ::-1], b[:, ::-1]


@wrong("Your matrices are square, (dim, dim): all but dim_head of the singular values are zero, and their columns can go.")
def not_cut(w_q, w_k):
    left, strengths, right = np.linalg.svd(w_q @ w_k.T)
    return left * np.sqrt(strengths), right.T * np.sqrt(strengths)


@wrong("The two matrices come out exchanged: their product is W_K W_Qᵀ. What asks and what is asked are not the same in a head.")
def exchanged(w_q, w_k):
    a, b = sorted_basis(w_q, w_k)
    return b, a


@wrong("You decompose W_Qᵀ W_K, which is (dim_head, dim_head): it compares coordinates of the head. The scores of all token vectors are in the "
       "other product, W_Q W_Kᵀ.")
def other_product(w_q, w_k):
    left, _, right = np.linalg.svd(w_q.T @ w_k)
    return w_q @ left, w_k @ right.T
