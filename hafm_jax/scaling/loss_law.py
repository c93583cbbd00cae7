"""The law of a stage's loss, L(N, D) = E + A / N^alpha + B / D^beta, by the third method of Hoffmann et al. 2022.

The law is fitted to the logs of losses by L-BFGS, from the best of a grid of starts. Huber's loss makes an outlying run
count little. Besiroglu et al. 2024 (arXiv 2404.10102) show that the original (arXiv 2203.15556) stopped too early,
because it averaged a loss of tiny numbers against an absolute tolerance. Here residuals are in units of Huber's delta,
terms are taken at the middle of the data, which makes the five unknowns nearly independent, gradients are exact, and
the tolerance is far below the differences between draws.

Intervals: runs are drawn with replacement, as many as there are, and the law is fitted to each draw, starting from the
fit to all runs.

Axes: N parameters (without embeddings and heads), D target tokens trained on, L nats a token. R runs, S draws,
P points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize, nnls

from hafm_jax.common.errors import install, needed_for
from hafm_jax.scaling.estimates import NotEnough

DELTA = 1e-3  # where Huber's loss turns from square to absolute, in log loss [Hoffmann et al.]
MIN_RUNS = 6  # the law has 5 unknowns
MIN_DISTINCT = 3  # ours, of sizes and of lengths: with two, noise alone sets the exponent
STARTS = 4  # ours: how many of the grid's best points the fit starts from
EXPONENTS = np.geomspace(0.05, 2.0, 10)  # ours, the grid of starts; published exponents are 0.05 to 0.7
LARGEST_EXPONENT = 5.0  # ours: above it a term is 0 at all but the smallest size, and its exponent is meaningless
SMALLEST_EXPONENT = 0.01  # ours: below it a hundredfold changes the term by less than a twentieth: the loss is flat
SMALLEST_TERM = 1e-5  # ours, of the smallest loss: a smaller term is not distinguishable from 0


@dataclass(frozen=True)
class Law:
    """Five numbers, or those of draws, five arrays [S, 1]: then losses at points [P] are [S, P]. float64.

    `log_a` and `log_b` are natural logs of A and B, which overflow where exponents are steep.
    """

    e: np.ndarray  # nats a token, of an infinite model and infinite data
    log_a: np.ndarray
    alpha: np.ndarray
    log_b: np.ndarray
    beta: np.ndarray

    def loss(self, parameters: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Nats a token."""
        of_size = np.exp(self.log_a - self.alpha * np.log(parameters))
        of_data = np.exp(self.log_b - self.beta * np.log(tokens))
        return self.e + of_size + of_data

    @property
    def falls(self) -> np.ndarray:
        """Whether size and data both lower the loss: only then does a budget have a best size."""
        return (self.alpha > SMALLEST_EXPONENT) & (self.beta > SMALLEST_EXPONENT)

    def numbers(self) -> dict[str, np.ndarray]:
        """By their names in the formula."""
        return {
            "E": self.e,
            "A": np.exp(self.log_a),
            "alpha": self.alpha,
            "B": np.exp(self.log_b),
            "beta": self.beta,
        }


def fit_law(
    parameters: np.ndarray, tokens: np.ndarray, loss: np.ndarray, counts: np.ndarray | None = None
) -> tuple[Law, Law]:
    """The law of runs, and those of draws of them.

    Args: all float64 [R]; `counts` int64 [S, R], how often each run is in each draw.
    Returns: the law, and a Law of arrays [S, 1]; S is 0 without `counts`.
    Raises NotEnough where there are too few runs, sizes or lengths, and InputError without threadpoolctl.
    """
    for name, values in (("sizes", parameters), ("lengths in tokens", tokens)):
        if (found := len(np.unique(values))) < MIN_DISTINCT:
            raise NotEnough(f"it needs at least {MIN_DISTINCT} {name}, and the runs have {found}")
    if len(loss) < MIN_RUNS:
        raise NotEnough(f"it needs at least {MIN_RUNS} runs, and there are {len(loss)}")
    # Here, not above: machines that only make a sweep's runs do without it.
    with needed_for("fitting laws needs threadpoolctl", install("sweep")):
        from threadpoolctl import threadpool_limits
    problem = _Problem(parameters, tokens, loss)
    even = np.ones(len(loss))
    with threadpool_limits(1, user_api="blas"):  # L-BFGS solves systems of 10 x 10: threads only wait for each other
        best = min((problem.solve(start, even) for start in problem.starts()), key=lambda found: found.fun)
        draws = [problem.solve(best.x, of_draw).x for of_draw in ([] if counts is None else counts)]
    return problem.law(best.x), problem.law(np.reshape(draws, (-1, 5)).T[..., None])


class _Problem:
    """The fit's unknowns [5], in the order of Law's fields: the logs of the three terms at the middle of the data, and
    the exponents."""

    def __init__(self, parameters: np.ndarray, tokens: np.ndarray, loss: np.ndarray):
        log_n, log_d, self.log_loss = np.log(parameters), np.log(tokens), np.log(loss)
        self.middle = log_n.mean(), log_d.mean()
        self.x, self.y = log_n - self.middle[0], log_d - self.middle[1]  # [R]
        lowest = self.log_loss.min() + np.log(SMALLEST_TERM)
        term, exponent = (lowest, self.log_loss.max() + 1), (0.0, LARGEST_EXPONENT)
        self.bounds = [term, term, exponent, term, exponent]

    def law(self, unknowns: np.ndarray) -> Law:
        """Unknowns [5, ...] -> Law."""
        e, a, alpha, b, beta = unknowns
        return Law(np.exp(e), a + alpha * self.middle[0], alpha, b + beta * self.middle[1], beta)

    def objective(self, unknowns: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
        """The weighted mean of Huber's loss of the residuals in units of DELTA, and its gradient [5]."""
        e, a, alpha, b, beta = unknowns
        of_size, of_data = np.exp(a - alpha * self.x), np.exp(b - beta * self.y)
        total = np.exp(e) + of_size + of_data
        residual = (np.log(total) - self.log_loss) / DELTA
        slope = np.minimum(np.maximum(residual, -1.0), 1.0)
        value = slope * (residual - 0.5 * slope)
        pull = weights * slope / total
        by_size, by_data = pull * of_size, pull * of_data
        gradient = np.array(
            [pull.sum() * np.exp(e), by_size.sum(), -by_size @ self.x, by_data.sum(), -by_data @ self.y]
        )
        scale = weights.sum()
        return weights @ value / scale, gradient / (DELTA * scale)

    def starts(self) -> list[np.ndarray]:
        """The STARTS best of a grid of exponents. With given exponents the law is linear in E, A and B: least squares
        of relative errors finds these (variable projection: Czech et al. 2026, arXiv 2603.22339) in any units."""
        loss = np.exp(self.log_loss)
        found = []
        for alpha in EXPONENTS:
            for beta in EXPONENTS:
                terms = np.stack([np.ones_like(loss), np.exp(-alpha * self.x), np.exp(-beta * self.y)], axis=1)
                factors, _ = nnls(terms / loss[:, None], np.ones_like(loss))
                e, a, b = np.log(np.maximum(factors, 1e-2 * loss.min()))  # away from 0, where gradients vanish
                start = np.array([e, a, alpha, b, beta])
                found.append((self.objective(start, np.ones_like(loss))[0], start))
        found.sort(key=lambda pair: pair[0])
        return [start for _, start in found[:STARTS]]

    def solve(self, start: np.ndarray, weights: np.ndarray):
        """SciPy's result; its `x` are the unknowns."""
        return minimize(
            self.objective,
            start,
            args=(weights,),
            jac=True,
            method="L-BFGS-B",
            bounds=self.bounds,
            options={"maxiter": 2000, "ftol": 1e-11, "gtol": 1e-8},
        )
