"""The one exception that is meant for the user's eyes, and how a stranger's text is shown to them."""


def printable(text: str) -> str:
    """The text as a terminal may show it: whatever is not printable is spelled out, line breaks stay.

    A name from a file may hold escape sequences, marks that turn the reading direction, or half of a surrogate pair.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(each if each.isprintable() or each == "\n" else _spelled(each) for each in text)


def one_line(text: str) -> str:
    """`printable`, and line breaks spelled out too: what a name of a file holds never looks like a line of ours."""
    return printable(text.replace("\n", "\\n"))


def _spelled(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


LONGEST = 3000
"""Characters of one part of a message; a file may hold a name of a million."""


def _short(text: str) -> str:
    left_out = len(text) - LONGEST
    if left_out <= 0:
        return text
    return f"{text[: LONGEST // 2]} [{left_out:,} characters left out] {text[-LONGEST // 2 :]}"


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
        where, problem, remedy = (one_line(_short(part)) for part in (self.where, self.problem, self.remedy))
        return f"{where}: {problem}\n  {remedy}"

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the trip out of a worker process (keyword-only arguments break the default pickling)."""
        return (_rebuild, (self.where, self.problem, self.remedy))


def _rebuild(where: str, problem: str, remedy: str) -> BridgeError:
    return BridgeError(where=where, problem=problem, remedy=remedy)


class ConversionWarning(UserWarning):
    """A conversion did something to values of the model that its training did not decide; the text says what and how much."""
