"""Routes of the dialect."""

from gateway.api.strict_route import StrictRoute


class LenientRoute(StrictRoute):
    """A route that leaves unknown names out: the program that sends them cannot be corrected."""

    ignores_unknown = True
