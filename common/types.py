"""Types that several packages share."""

from typing import Literal

# What a row of training data is: a judged pair, a query with its document, or a query with
# positive and negative candidates.
Shape = Literal["scored_pair", "positive_pair", "candidate_group"]
