"""What a doctor finds: each with how bad it is and what to do."""

from __future__ import annotations

from kumo_crt._engine import Task
from kumo_crt.backup._reports import Finding
from kumo_crt.exceptions import AccessDeniedError, KumoError, S3Error

OK, INFO, WARNING, ERROR = SEVERITIES = ("ok", "info", "warning", "error")
_TROUBLE = "mend what the service answers, or wait until it is well, and run this once more"
# What services answer that do not know a request.
_UNKNOWN = ("NotImplemented", "MethodNotAllowed", "UnsupportedOperation", "InvalidRequest")


class Findings:
    """Collects findings; a check that fails is one itself."""

    def __init__(self) -> None:
        self.all: list[Finding] = []

    def add(self, severity: str, check: str, message: str, fix: str = "") -> None:
        """Adds one."""
        self.all.append(Finding(severity, check, message, fix))

    def ok(self, check: str, message: str) -> None:
        """Adds what is as it should be."""
        self.add(OK, check, message)

    def tried(
        self,
        check: str,
        task: Task[None],
        *,
        permission: str = "",
        severity: str = ERROR,
        what_for: str = "",
    ) -> Task[bool]:
        """Runs a check; what it raises becomes a finding. Tells whether it came to its end.

        Args:
            check: Its name.
            task: The check.
            permission: What IAM calls the right that it needs.
            severity: How bad it is if that right is missing, or the request fails.
            what_for: What cannot be done then.
        """
        try:
            yield from task
        except AccessDeniedError as error:
            fix = f"allow {permission or 'this'} to these credentials"
            message = f"not permitted: {error.code}"
            if what_for:
                message += f"; without it {what_for}"
            self.add(severity, check, message, fix)
            return False
        except S3Error as error:
            if error.code in _UNKNOWN or error.status in (405, 501):
                self.add(INFO, check, f"the service does not know this request ({error.code})")
            else:
                self.add(severity, check, str(error), _TROUBLE)
            return False
        except KumoError as error:
            self.add(severity, check, str(error), _TROUBLE)
            return False
        return True
