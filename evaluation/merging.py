"""Choose the weights of a merge by what the merged models are worth."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from encoders.backbone import Encoder
from evaluation.measure import Evaluated, Evaluator
from evaluation.metrics.comparison import Comparison

# Shares of the last of two models that are tried.
STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)

Shares = tuple[float, ...]


class Trial(NamedTuple):
    """What a merge is worth.

    Args:
        shares: Of the models; (1, 0, ...) is the first model itself.
        value: The main metric on the data that choose.
        difference: That of the first model and this one's, with its interval.
        guard: The main metric on the data that must not get worse, if there are any.
        is_allowed: Whether it is not worse than the first model's there.
    """

    shares: Shares
    value: float
    difference: Comparison
    guard: float | None
    is_allowed: bool


class Trials:
    """Measures merges, and remembers what they are worth.

    Args:
        merge: Gives the model that is merged by these shares.
        models: How many there are; the first is the base of all.
        evaluator: Its main metric chooses.
        guard: On other data: what is worth less there than the first model is not chosen.
        run: Runs an evaluator on the model of this process; None: ``Evaluator.evaluate``.
    """

    def __init__(
        self,
        merge: Callable[[Shares], Encoder],
        models: int,
        evaluator: Evaluator,
        guard: Evaluator | None = None,
        run: Callable[[Evaluator], Evaluated] | None = None,
    ) -> None:
        self.merge, self.evaluator, self.guard, self.run = merge, evaluator, guard, run
        self.models = models
        self.tried: dict[Shares, Trial] = {}
        self._base: Evaluated | None = None

    def find(self) -> Trial:
        """The best merge: of two models by steps of a quarter, of more a greedy soup.

        A greedy soup averages the best model with those that make it better, tried from the best
        to the worst (Wortsman et al., "Model soups", 2022). Of equal ones the first tried is best.
        """
        if self.models == 2:
            return self.best([self.measured((1 - share, share)) for share in STEPS])
        alone = [self.measured(self.average([at])) for at in range(self.models)]
        ranked = sorted(range(self.models), key=lambda at: -alone[at].value)
        best, soup = self.best(alone), [at for at in ranked if alone[at].is_allowed][:1]
        for at in ranked:
            if at not in soup:
                found = self.measured(self.average([*soup, at]))
                if found.is_allowed and found.value > best.value:
                    best, soup = found, [*soup, at]
        return best

    def best(self, trials: Sequence[Trial]) -> Trial:
        """The best of those that are allowed; the first model always is."""
        return max((trial for trial in trials if trial.is_allowed), key=lambda trial: trial.value)

    def average(self, chosen: Sequence[int]) -> Shares:
        """The shares of a plain average of some of the models."""
        return tuple((at in chosen) / len(chosen) for at in range(self.models))

    def measured(self, shares: Shares) -> Trial:
        """What a merge is worth, beside the first model."""
        first = self.average([0])
        if self._base is None and shares != first:
            self.measured(first)
        if shares not in self.tried:
            model = self.merge(shares)
            run = self.run or (lambda evaluator: evaluator.evaluate(model))
            found = run(self.evaluator)
            self._base = self._base or found
            guard = None if self.guard is None else self.guard.main_value(run(self.guard))
            lowest = self.tried[first].guard if first in self.tried else guard
            self.tried[shares] = Trial(
                shares,
                self.evaluator.main_value(found),
                self.evaluator.compare(self._base, found),
                guard,
                guard is None or lowest is None or guard >= lowest,
            )
        return self.tried[shares]
