"""The one exception that is meant for the user's eyes."""


class BridgeError(Exception):
    """A foreseeable problem with the user's input: where it is, what is wrong, what to do.

    Command lines print it without a traceback and exit with code 2. Every other exception is our own defect.
    """

    def __init__(self, *, where: str, problem: str, remedy: str) -> None:
        self.where = where
        self.problem = problem
        self.remedy = remedy
        super().__init__(where, problem, remedy)

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}\n  {self.remedy}"

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the trip out of a worker process (keyword-only arguments break the default pickling)."""
        return (_rebuild, (self.where, self.problem, self.remedy))


def _rebuild(where: str, problem: str, remedy: str) -> BridgeError:
    return BridgeError(where=where, problem=problem, remedy=remedy)
