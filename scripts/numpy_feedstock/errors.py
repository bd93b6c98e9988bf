"""The one root of the errors that a user may meet."""


class FeedstockError(Exception):
    """Something the user can act on; ``exit_code`` is 1 for work that failed, 2 for wrong use.

    what : str, what failed and where
    details : expected, found, remedy, known, log ...: a line each, in this order
    """

    exit_code = 1

    def __init__(self, what, **details):
        width = max(map(len, details), default=0) + 1
        lines = [f"  {name + ':':{width}} {value}" for name, value in details.items()]
        super().__init__("\n".join([what, *lines]))


class UsageError(FeedstockError):
    """Wrong use, or a machine that lacks something: nothing was changed."""

    exit_code = 2
