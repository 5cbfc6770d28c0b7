"""Arguments, the ``Trainer`` subclasses, the table of objectives, and runs made of them."""

from trainers.config.arguments import TandemArguments
from trainers.objectives import OBJECTIVES, Objective
from trainers.run import Run, build_run, parse_run

__all__ = ["OBJECTIVES", "Objective", "Run", "TandemArguments", "build_run", "parse_run"]
