"""The AWS Common Runtime's log lines as Python log records.

Each CRT log subject is a logger ``kumo_crt.crt.<subject>``; how much the CRT logs follows those
loggers' effective levels. The CRT calls an ordinary 404 an error, and what goes wrong is raised as
an exception anyway, so ``kumo_crt.crt`` itself begins at CRITICAL: set its level to see more.
Lines are formatted natively and handed over by one daemon thread, so that no event-loop thread
ever takes the GIL.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading

from kumo_crt import _core
from kumo_crt._threads import SystemThread

ROOT = "kumo_crt.crt"
_CRT_NONE = 0
# Highest Python level that still lets a CRT level through.
_LEVELS = {
    1: logging.CRITICAL,  # fatal
    2: logging.ERROR,
    3: logging.WARNING,
    4: logging.INFO,
    5: logging.DEBUG,
    6: 5,  # trace: below DEBUG, has to be asked for
}

# What the CRT logs of a request at debug and trace level.
_SECRETS = re.compile(
    r"((?:x-amz-security-token|x-amz-s3session-token|authorization|x-amz-signature"
    r"|x-amz-server-side-encryption-customer-key|aws_secret_access_key|secret_access_key"
    r"|aws_session_token|session_token|sso_session|access_token|\"?SecretAccessKey\"?"
    r"|\"?SessionToken\"?|\"?Token\"?)\s*[:=]\s*)(\S[^\r\n]*)",
    re.IGNORECASE,
)
_SIGNATURE = re.compile(r"(Signature=)[0-9a-fA-F]+")

_MARK = 47  # a level that nobody asks for

_top = logging.getLogger(ROOT)
logging.getLogger("kumo_crt").addHandler(logging.NullHandler())
if _top.level == logging.NOTSET:
    _top.setLevel(logging.CRITICAL)

_lock = threading.Lock()
_subjects: list[tuple[int, logging.Logger]] = []
_thread: SystemThread | None = None


def redact(text: str) -> str:
    """Replaces what follows the name of a secret by ``***``."""
    return _SIGNATURE.sub(r"\1***", _SECRETS.sub(r"\1***", text))


def _crt_level(python_level: int) -> int:
    chosen = _CRT_NONE
    for crt, python in _LEVELS.items():
        if python >= python_level:
            chosen = crt
    return chosen


def refresh(force: bool = False) -> None:
    """Carries the loggers' levels over to the CRT; does nothing if no level has changed.

    `logging` empties its loggers' caches of levels whenever one is set, so a cache that still holds
    what was put there says that nothing has.
    """
    if _MARK in getattr(_top, "_cache", ()) and not force:
        return
    _top.isEnabledFor(_MARK)
    for subject, logger in _subjects:
        _core.set_subject_log_level(subject, _crt_level(logger.getEffectiveLevel()))


def start() -> None:
    """Starts handing lines over; once per process, before the first client."""
    global _thread
    with _lock:
        if _thread is not None:
            return
        _core.init_libraries()
        _core.set_log_level(_crt_level(_top.getEffectiveLevel()))
        _subjects.extend(
            (subject, logging.getLogger(f"{ROOT}.{name}")) for subject, name in _core.log_subjects()
        )
        refresh(force=True)
        _thread = SystemThread(_drain, "kumo_crt-log")


def join(timeout: float) -> None:
    """Waits for the thread, after `_core.shutdown` stopped the bridge."""
    if _thread is not None:
        _thread.join(timeout)


def forget_after_fork() -> None:
    """Forgets the thread, which lives in the parent only."""
    global _thread
    _thread = None


def _drain() -> None:
    while not _core.log_stopped():
        for level, subject, text in _core.take_log_lines(3600.0):
            logger = logging.getLogger(f"{ROOT}.{subject}")
            with contextlib.suppress(Exception):  # a broken filter must not end the log
                logger.log(_LEVELS.get(level, logging.DEBUG), "%s", redact(text).rstrip())
