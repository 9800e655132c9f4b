"""The one exception by which an operation refuses, shaped as AWS shapes its errors."""

from __future__ import annotations


class AwsError(Exception):
    """Becomes the service's own error answer.

    `code` is what boto3 shows as `Error.Code`; where botocore's model knows the code, its HTTP status is used unless
    `http_status` is given (400 otherwise, which boto3 does not retry).
    """

    def __init__(self, code: str, message: str, http_status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.http_status = http_status


def not_implemented(service: str, what: str) -> AwsError:
    """What the embedded AWS does not truly do is refused by name, never made up."""
    return AwsError(
        "NotImplemented",
        f"The embedded AWS does not implement {service}:{what}. It refuses rather than pretend; "
        "use a real AWS account for this call.",
    )
