"""Find the line of the user's code that an error came from.

Lines of this package, of the standard library and of installed packages do not count as the user's.
"""

from __future__ import annotations

import sysconfig
from types import FrameType

__all__ = ["raised_at"]

# .../streamstate/engine/task/user_code.py
_OWN = __file__.rpartition("/engine/")[0] + "/"
_PATHS = sysconfig.get_paths()
_LIBRARY = tuple({f"{_PATHS[name]}/" for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_INSTALLED = ("/site-packages/", "/dist-packages/")


def raised_at(error: BaseException | None) -> str | None:
    """Return the innermost line of the user's code in an error's traceback, as tracebacks write it.

    Args:
        error: with its traceback. Where none of its lines is the user's, those of what caused it are looked at.

    Returns:
        Such as ``File "x.py", line 12, in <lambda>``; None where no line is the user's, as of a built-in function.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        found: str | None = None
        step = error.__traceback__
        while step is not None:
            if _is_users(step.tb_frame):
                code = step.tb_frame.f_code
                found = f'File "{code.co_filename}", line {step.tb_lineno}, in {code.co_name}'
            step = step.tb_next
        if found is not None:
            return found
        error = error.__cause__
    return None


def _is_users(frame: FrameType) -> bool:
    path = frame.f_code.co_filename
    if path.startswith((_OWN, "<frozen")):
        return False
    # An environment may lie anywhere, also in the user's own folder.
    return not path.startswith(_LIBRARY) and not any(part in path for part in _INSTALLED)
