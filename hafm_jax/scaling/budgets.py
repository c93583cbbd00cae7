"""What a token costs at a size, and the best size and length for a budget of FLOPs under a law.

C = 6 N D does not hold here: a target token brings condition tokens with it, and at small sizes attention and heads
cost more than the layers that N counts. The runs carry analytic FLOPs (model/config.py); a curve through them says
what sizes between and beyond would cost.

N parameters, D target tokens, C FLOPs of training. R runs, S draws, X shapes of N that broadcast.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from hafm_jax.scaling.loss_law import Law

# Where depth grows with width, N ~ width^3: layers cost N, attention (depth x width) N^(2/3), heads (width) N^(1/3);
# where depth stays, N ~ width^2, and attention and heads cost N^(1/2).
POWERS = np.array([1, 2 / 3, 1 / 2, 1 / 3])


@dataclass(frozen=True)
class TokenCost:
    """FLOPs of training a target token: the sum of factors [4], none negative, times N to the POWERS."""

    factors: np.ndarray

    def __call__(self, parameters: np.ndarray) -> np.ndarray:
        """N [X] -> FLOPs a token [X]."""
        return np.power.outer(parameters, POWERS) @ self.factors

    def elasticity(self, parameters: np.ndarray) -> np.ndarray:
        """d log cost / d log N [X]: 1 where all cost is in the layers."""
        return np.power.outer(parameters, POWERS) @ (self.factors * POWERS) / self(parameters)

    def best(self, law: Law, flops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """N and D of the lowest loss that `flops` can buy: [X] as law and `flops` broadcast, nan where no law falls.

        Along N cost(N) D = C the loss stops falling where alpha A / N^alpha = beta B / D^beta times the elasticity. The
        difference of the logs falls with log N throughout, so halving an interval finds the one place.
        """
        log_flops = np.log(flops)

        def too_small(log_n: np.ndarray) -> np.ndarray:
            n = np.exp(log_n)
            gain = np.log(law.alpha) + law.log_a - law.alpha * log_n
            log_d = log_flops - np.log(self(n))
            price = np.log(law.beta) + law.log_b - law.beta * log_d + np.log(self.elasticity(n))
            return gain > price

        shape = np.broadcast_shapes(np.shape(law.alpha), np.shape(flops))
        low, high = np.zeros(shape), np.full(shape, 100.0)  # 1 to e^100 parameters
        with np.errstate(divide="ignore"):  # an exponent of 0: nothing to gain, or nothing to pay
            for _ in range(60):
                middle = (low + high) / 2
                larger = too_small(middle)
                low, high = np.where(larger, middle, low), np.where(larger, high, middle)
        parameters = np.where(law.falls, np.exp((low + high) / 2), np.nan)
        return parameters, flops / self(parameters)


def fit_token_cost(parameters: np.ndarray, tokens: np.ndarray, flops: np.ndarray) -> tuple[TokenCost, float]:
    """The curve through runs, all [R], and the largest relative error that it makes of their FLOPs."""
    measured = flops / tokens
    terms = np.power.outer(parameters, POWERS) / measured[:, None]  # [R, 4]
    scale = terms.max(axis=0)
    factors, _ = nnls(terms / scale, np.ones(len(measured)))
    cost = TokenCost(factors / scale)
    return cost, float(np.abs(cost(parameters) / measured - 1).max())
