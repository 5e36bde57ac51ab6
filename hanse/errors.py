"""Everything that `hanse` can say no with. The tree is the contract; a message is a sentence.

HanseError
├─ BadAddress             the broker's address cannot be used
├─ NotConfigured          no address or no token: log in first
├─ Unreachable            no answer, after all retries
├─ BadAnswer              an answer that is not what the API promises
├─ NoSuchJob, AmbiguousJob   what was typed names no job, or several
├─ JobFileInvalid         a job file with problems, each with its line
└─ ApiRefused             the API said no: status, code, detail, errors
   ├─ NotLoggedIn 401 · NotAllowed 403 · NotFound 404 · Conflict 409
   ├─ Invalid 400, 422    errors[] names the fields
   └─ TooManyRequests 429 · ServerFailed 5xx
"""

from __future__ import annotations

from dataclasses import dataclass


class HanseError(Exception):
    """Base of all; `code` is for a machine, `str()` a sentence for a human."""

    code = "error"


class BadAddress(HanseError):
    code = "bad_address"


class NotConfigured(HanseError):
    code = "not_configured"


class Unreachable(HanseError):
    code = "unreachable"


class BadAnswer(HanseError):
    code = "bad_answer"


class NoSuchJob(HanseError):
    code = "no_such_job"


class AmbiguousJob(HanseError):
    code = "ambiguous_job"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a job file. `line` counts from 1; `path` is empty for the whole file."""

    line: int
    path: str
    sentence: str

    def __str__(self) -> str:
        return ": ".join(part for part in (str(self.line), self.path, self.sentence) if part)


class JobFileInvalid(HanseError):
    code = "invalid_job_file"

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        self.problems = problems
        super().__init__("; ".join(f"line {problem}" for problem in problems))


@dataclass(frozen=True, slots=True)
class FieldError:
    """One entry of a problem document's `errors`."""

    path: str
    sentence: str
    code: str = ""


class ApiRefused(HanseError):
    """The API answered with a problem document (RFC 9457) or a bare error status."""

    def __init__(
        self, *, status: int, code: str, detail: str, errors: tuple[FieldError, ...] = ()
    ) -> None:
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors
        said = (f"{error.path}: {error.sentence}" for error in errors)
        fields = "; ".join(text for text in said if text not in detail)
        super().__init__(f"{detail.rstrip('.')} ({fields})" if fields else detail)


class NotLoggedIn(ApiRefused):
    """401"""


class NotAllowed(ApiRefused):
    """403"""


class NotFound(ApiRefused):
    """404"""


class Conflict(ApiRefused):
    """409"""


class Invalid(ApiRefused):
    """400 and 422"""


class TooManyRequests(ApiRefused):
    """429, after all retries"""


class ServerFailed(ApiRefused):
    """5xx, after all retries"""


_BY_STATUS: dict[int, type[ApiRefused]] = {
    400: Invalid,
    401: NotLoggedIn,
    403: NotAllowed,
    404: NotFound,
    409: Conflict,
    422: Invalid,
    429: TooManyRequests,
}


def refusal(
    *, status: int, code: str, detail: str, errors: tuple[FieldError, ...] = ()
) -> ApiRefused:
    """The error class that belongs to an HTTP status."""
    kind = _BY_STATUS.get(status, ServerFailed if status >= 500 else ApiRefused)
    return kind(status=status, code=code, detail=detail, errors=errors)
