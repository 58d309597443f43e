"""A number with its interval, and the intervals of proportions."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number, its interval, how many observations carry it, and how it was computed.

    >>> print(wilson(46, 50))
    0.920 (0.812 to 0.968, n=50)

    Attributes:
        value, low, high: None where they cannot be computed; `why` then says the reason.
        n: observations.
        method: name and source of the computation.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    method: str
    why: str | None = None

    def to_json(self) -> dict[str, Any]:
        """A plain mapping; `why` only where the value or the interval is missing."""
        whole = asdict(self)
        if self.why is None:
            del whole["why"]
        return whole

    def __str__(self) -> str:
        if self.value is None:
            return f"unknown ({self.why})"
        if self.low is None or self.high is None:
            return f"{self.value:.3f} (n={self.n})"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f}, n={self.n})"


def unknown(n: int, method: str, why: str) -> Estimate:
    """What cannot be computed, and why."""
    return Estimate(None, None, None, n, method, why)


def wilson(k: float, n: float, confidence: float = CONFIDENCE, method: str = "wilson") -> Estimate:
    """Wilson's score interval for a proportion.

    Args:
        k: successes, 0 <= k <= n.
        n: trials; an effective number may be fractional.
        confidence: of the interval, such as 0.95.
        method: the name the result carries.

    Returns:
        k / n and its interval; unknown if n is 0: nobody without answers has a score of 0.

    Raises:
        ValueError: if not 0 <= k <= n.

    References:
        Wilson, E. B. (1927). Probable inference, the law of succession, and statistical inference.
        JASA 22(158), 209-212. Compared in Newcombe (1998), Statistics in Medicine 17, 857-872, method 3.
    """
    if not 0 <= k <= n:
        raise ValueError(f"need 0 <= k <= n, got k={k}, n={n}")
    if n == 0:
        return unknown(0, method, "there is nothing to judge by")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p = k / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)))
    low = 0.0 if k == 0 else max(0.0, centre - half)
    high = 1.0 if k == n else min(1.0, centre + half)
    return Estimate(p, low, high, round(n), method)


def clopper_pearson(k: float, n: float, confidence: float = CONFIDENCE) -> Estimate:
    """Clopper and Pearson's interval for a proportion; it covers at least as often as it says.

    Args:
        k: successes, 0 <= k <= n; both may be fractional, of an effective sample.
        n: trials.
        confidence: of the interval.

    Raises:
        ValueError: if not 0 <= k <= n.

    References:
        Clopper, C. J. & Pearson, E. S. (1934). The use of confidence or fiducial limits illustrated in the
        case of the binomial. Biometrika 26, 404-413.
    """
    method = "Clopper-Pearson"
    if not 0 <= k <= n:
        raise ValueError(f"need 0 <= k <= n, got k={k}, n={n}")
    if n == 0:
        return unknown(0, method, "there is nothing to judge by")
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    low = float(betaincinv(k, n - k + 1, tail)) if k > 0 else 0.0
    high = float(betaincinv(k + 1, n - k, 1 - tail)) if k < n else 1.0
    return Estimate(k / n, low, high, round(n), method)


def clustered(k: Floats, n: Floats, confidence: float = CONFIDENCE) -> Estimate:
    """A proportion of units that come in clusters (the objects of one picture err together).

    Wilson's interval with the effective sample size n / deff. The design effect is the variance of the
    ratio of sums (Taylor linearisation over clusters) divided by that of independent units, and is never
    taken to be less than 1.

    Args:
        k: (T,) successes in each cluster.
        n: (T,) units in each cluster.
        confidence: of the interval.

    Returns:
        The proportion over all units; `n` counts units, not clusters.

    References:
        Kish, L. (1965). Survey Sampling, section 8.2 (deff). Rao, J. N. K. & Scott, A. J. (1992). A simple
        method for the analysis of clustered binary data. Biometrics 48, 577-585.
    """
    method = "wilson, tasks as clusters (Rao and Scott 1992)"
    total, right = float(n.sum()), float(k.sum())
    clusters = int((n > 0).sum())
    if total == 0:
        return unknown(0, method, "there is nothing to judge by")
    p = right / total
    deff = 1.0
    if clusters > 1 and 0 < p < 1:
        residual = k - p * n
        variance = clusters / (clusters - 1) * float((residual**2).sum()) / total**2
        deff = max(1.0, variance / (p * (1 - p) / total))
    elif clusters >= 1:
        # Nothing varies, so nothing tells how units err together: count pictures, not objects.
        deff = total / clusters
    effective = total / deff
    bare = wilson(p * effective, effective, confidence)
    return Estimate(p, bare.low, bare.high, int(total), method)


def mean_of(k: Floats, n: Floats, confidence: float = CONFIDENCE) -> Estimate:
    """A mean of numbers from 0 to 1 that come in clusters.

    Student's interval of a ratio of sums (Taylor linearisation over clusters), held within 0 and 1. Where
    nothing varies, or there is one cluster, that of a proportion with as many observations as there are
    clusters.

    Args:
        k: (T,) the sum of the numbers of each cluster.
        n: (T,) how many there are in each.
        confidence: of the interval.

    References:
        Cochran, W. G. (1977). Sampling Techniques, 3rd ed., sections 6.3 and 9A.1 (ratio to size).
    """
    method = "student, tasks as clusters (Cochran 1977)"
    total, clusters = float(n.sum()), int((n > 0).sum())
    if total == 0:
        return unknown(0, method, "there is nothing to judge by")
    mean = float(k.sum()) / total
    residual = k - mean * n
    variance = clusters / max(clusters - 1, 1) * float((residual**2).sum()) / total**2
    if clusters < 2 or variance < 1e-18:
        bare = wilson(min(mean, 1.0) * clusters, clusters, confidence)
        return Estimate(mean, bare.low, bare.high, int(total), method)
    from scipy.special import stdtrit

    half = float(stdtrit(clusters - 1, 0.5 + confidence / 2)) * variance**0.5
    return Estimate(mean, max(0.0, mean - half), min(1.0, mean + half), int(total), method)


def hypergeometric(k: int, n: int, population: int, confidence: float = CONFIDENCE) -> Estimate:
    """Exact interval for a proportion of a finite population, from a simple random sample.

    The limits are the smallest and largest numbers of successes in the population that a two-sided test
    with equal tails does not reject: Clopper and Pearson's idea with the hypergeometric distribution.

    Args:
        k: successes in the sample.
        n: size of the sample.
        population: size of the population; a sample of all of it leaves no uncertainty.
        confidence: of the interval.

    Raises:
        ValueError: if not 0 <= k <= n <= population.

    References:
        Buonaccorsi, J. P. (1987). A note on confidence intervals for proportions in finite populations.
        The American Statistician 41(3), 215-218.
    """
    method = "exact hypergeometric (Buonaccorsi 1987)"
    if not 0 <= k <= n <= population:
        raise ValueError(f"need 0 <= k <= n <= population, got k={k}, n={n}, population={population}")
    if n == 0:
        return unknown(0, method, "nothing was reviewed")
    from scipy import stats  # half a second, which most callers need not wait

    # A little above, so that rounding does not decide where a tail is exactly as large.
    tail = (1 - confidence) / 2 * (1 + 1e-9)
    # Successes in the population lie between those seen and all that were not seen to be failures.
    possible = np.arange(k, population - (n - k) + 1)
    at_least_k = stats.hypergeom.sf(k - 1, population, possible, n)
    at_most_k = stats.hypergeom.cdf(k, population, possible, n)
    kept = possible[(at_least_k > tail) & (at_most_k > tail)]
    return Estimate(k / n, float(kept[0]) / population, float(kept[-1]) / population, n, method)
