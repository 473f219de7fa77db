"""What a checker raises. A history ends with it."""


class Violated(AssertionError):
    """A rule does not hold. The message names it and says what was seen."""
