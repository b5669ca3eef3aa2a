"""Distributions, intervals and tests, written once more and apart from the program's; see recompute.py."""

import math
from statistics import NormalDist

import numpy as np

LEVEL = 0.95
RESAMPLES = 10000  # of a bootstrap; FLIPS random sign flips above EXACT values
FLIPS, EXACT = 19999, 16
ALLOWANCE = 2  # times the skewness of the sample
BATCHES = 10   # own bootstraps, whose spread is the error of one
normal = NormalDist()
random = np.random.default_rng(1)


# --- distributions -----------------------------------------------------------------------------------------------------

def incomplete_beta(a, b, x):
    """Regularised; the continued fraction of Abramowitz & Stegun 26.5.8, evaluated from its end."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(b, a, 1 - x)
    fraction = 1.0
    for m in range(400, 0, -1):
        k, odd = divmod(m, 2)
        d = -(a + k) * (a + b + k) * x / ((a + 2 * k) * (a + 2 * k + 1)) if odd else k * (b - k) * x / ((a + 2 * k - 1) * (a + 2 * k))
        fraction = 1 + d / fraction
    return math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a / fraction


def t_cdf(t, freedom):
    if freedom > 1e7:
        return normal.cdf(t)
    tail = 0.5 * incomplete_beta(0.5 * freedom, 0.5, freedom / (freedom + t * t))
    return tail if t < 0 else 1 - tail


def t_quantile(p, freedom):
    low, high = -1e6, 1e6
    while high - low > 1e-12 * max(1, abs(low)):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if t_cdf(middle, freedom) < p else (low, middle)
        if middle in (low, high) and high - low < 1e-9:
            break
    return 0.5 * (low + high)


# --- statistics --------------------------------------------------------------------------------------------------------

def by_document(values, documents):
    """One value a document, of the same mean and the linearised spread."""
    if documents is None or len(set(documents)) == len(values):
        return values
    labels = list(dict.fromkeys(documents))
    scale = len(labels) / len(values)
    return np.array([values.mean() + scale * (values - values.mean())[documents == label].sum() for label in labels])


def sums_by_document(values, documents):
    """Of the documents that are complete within `values`, which may be the first of more."""
    if documents is None:
        return values
    scale = len(set(documents)) / len(documents)
    ends = [i + 1 for i in range(len(values)) if i + 1 == len(documents) or documents[i + 1] != documents[i]]
    return np.array([scale * values[begin:end].sum() for begin, end in zip([0] + ends, ends)])


def bca(values):
    """The ends of the interval, from BATCHES bootstraps of RESAMPLES each: [batch, bound]."""
    n, centre = len(values), values.mean()
    if n < 2 or not np.isfinite(values).all():
        return np.full((1, 2), np.nan)
    if values.min() == values.max():
        return np.full((1, 2), values[0])
    deviation = values - centre
    acceleration = (deviation ** 3).sum() / (6 * (deviation ** 2).sum() ** 1.5)
    wide = math.sqrt(n / (n - 1)) * t_quantile(0.5 + 0.5 * LEVEL, n - 1)
    ends = []
    for _ in range(BATCHES):
        means = np.sort(values[random.integers(0, n, (RESAMPLES, n))].mean(axis=1))
        tie = 1e-13 * np.abs(values).max()
        share = ((means < centre - tie).sum() + 0.5 * (np.abs(means - centre) <= tie).sum()) / RESAMPLES
        z0 = normal.inv_cdf(min(max(share, 0.5 / RESAMPLES), 1 - 0.5 / RESAMPLES))
        levels = [normal.cdf(z0 + (z0 + z) / max(1 - acceleration * (z0 + z), 0.05)) for z in (-wide, wide)]
        ends.append(np.interp([p * (RESAMPLES + 1) - 1 for p in levels], np.arange(RESAMPLES), means))
    return np.array(ends)


def moments(values):
    deviation = values - values.mean()
    squares = (deviation ** 2).sum()
    n = len(values)
    if values.min() == values.max():
        return 0.0, 0.0
    return math.sqrt(squares / (n - 1) / n), ALLOWANCE * (deviation ** 3).sum() / squares ** 1.5


def hall(t, skew):
    return t + skew * t ** 2 / 3 + skew ** 2 * t ** 3 / 27 + skew / 6


def p_above(values, threshold=0.0):
    if len(values) < 2 or not np.isfinite(values).all():
        return math.nan
    error, skew = moments(values)
    if error == 0:
        return 2.0 ** -len(values) if values[0] > threshold else 1.0
    t = (values.mean() - threshold) / error
    return t_cdf(-min(t, hall(t, skew)), len(values) - 1)


def sign_flips(values):
    """The p value, and six standard errors of the difference from another one."""
    n = len(values)
    exact = n <= EXACT
    count = 2 ** n if exact else 5 * FLIPS
    signs = (np.arange(count)[:, None] >> np.arange(n) & 1 if exact else random.integers(0, 2, (count, n))) * 2 - 1
    least = abs(values.sum()) - (n + 1) * np.finfo(float).eps * np.abs(values).sum()
    extreme = (np.abs(signs @ values) >= least).sum()
    if exact:
        return extreme / count, 1e-12
    p = (extreme + 1) / (count + 1)
    return p, 6 * math.sqrt(p * (1 - p) * (1 / count + 1 / FLIPS)) + 6 / FLIPS


def holm(p_values):
    out, running = np.full(len(p_values), np.nan), 0.0
    tested = [i for i in np.argsort(p_values, kind="stable") if not np.isnan(p_values[i])]
    for rank, i in enumerate(tested):
        running = max(running, min(1.0, (len(tested) - rank) * p_values[i]))
        out[i] = running
    return out


def confidence_sequence(values, scale=0.7, least=16):
    n = len(values)
    if n < least:
        return np.array([-np.inf, np.inf])
    error, skew = moments(values)
    widening = 1 + n * scale ** 2
    bound = math.exp(2 / n * (math.log(1 / (1 - LEVEL)) + 0.5 * math.log(widening)))
    if error == 0:
        return np.full(2, values[0])
    if bound >= widening:
        return np.array([-np.inf, np.inf])
    t = math.sqrt((n - 1) * (bound - 1) / (1 - bound / widening))
    inverse = lambda at: at if abs(skew) < 1e-9 else 3 / skew * (np.cbrt(1 + skew * (at - skew / 6)) - 1)
    return values.mean() + error * np.array([-max(t, inverse(t)), max(t, -inverse(-t))])
