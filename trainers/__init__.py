"""Arguments, the ``Trainer`` subclasses and the table of objectives."""

from trainers.config.arguments import TandemArguments, parse_arguments
from trainers.objectives import OBJECTIVES, Objective

__all__ = ["OBJECTIVES", "Objective", "TandemArguments", "parse_arguments"]
