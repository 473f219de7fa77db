"""Errors for people and for scripts: what, why, what to do, ids; and the exit code."""

from typing import TextIO

from atoll import errors

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOT_PLACED = 3
EXIT_CONFLICT = 4
EXIT_NOT_ALLOWED = 5
EXIT_UNREACHABLE = 6
EXIT_UNKNOWN = 7
EXIT_OBJECTIVE = 8
EXIT_CHANGES = 9
EXIT_INTERRUPTED = 130

_CODES: dict[type[errors.AtollError], int] = {
    errors.Invalid: EXIT_USAGE,
    errors.NotPlaced: EXIT_NOT_PLACED,
    errors.Conflict: EXIT_CONFLICT,
    errors.NotAuthenticated: EXIT_NOT_ALLOWED,
    errors.NotAllowed: EXIT_NOT_ALLOWED,
    errors.Unavailable: EXIT_UNREACHABLE,
    errors.Busy: EXIT_UNREACHABLE,
    errors.OutcomeUnknown: EXIT_UNKNOWN,
}


def exit_code(error: BaseException) -> int:
    return next((code for kind, code in _CODES.items() if isinstance(error, kind)), EXIT_FAILED)


def report(error: BaseException, stream: TextIO) -> bool:
    """Writes an expected error for people. False for one that nobody expected: that is a defect."""
    if not isinstance(error, errors.AtollError):
        return False
    from atoll.cli.output import span, visible
    from atoll.manifest import ManifestError

    lines = [f"Error {error.code}: {visible(error.message, keep_lines=True)}"]
    if isinstance(error, ManifestError):
        lines = [visible(str(mark)) for mark in error.marks] + lines
    else:
        lines += [f"  {visible(m.path)}: {visible(m.message)}".replace("  : ", "  ") for m in error.mistakes]
    if error.retry_after_ms:
        lines.append(f"Come again in {span(error.retry_after_ms)}")
    if error.hint:
        lines.append(f"Try   {visible(error.hint)}")
    if error.request_id:
        lines.append(f"Request id   {visible(error.request_id)}")
    stream.write("\n".join(lines) + "\n")
    return True
