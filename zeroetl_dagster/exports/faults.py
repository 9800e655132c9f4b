"""What AWS refuses or fails an export with, and what mends it.

Codes: RDS API reference, `StartExportTask`. Failure messages: Aurora guide, "Failure messages for Amazon S3 export
tasks"; they are prose, so only their stable words are matched, and AWS's own text always comes first.
"""

from __future__ import annotations

from botocore.exceptions import ClientError

_ROLE_POLICY = (
    "s3:PutObject*, s3:GetObject*, s3:DeleteObject* on the bucket's objects, s3:ListBucket and s3:GetBucketLocation on "
    "the bucket"
)
_TRUST = 'its trust policy must let {"Service": "export.rds.amazonaws.com"} call sts:AssumeRole'
_KMS = "the key must be enabled and symmetric, and both caller and export role need kms:CreateGrant and kms:DescribeKey"

_REFUSALS = {
    "DBClusterSnapshotNotFoundFault": "the snapshot was deleted since it was chosen: run the partition again",
    "DBSnapshotNotFound": "the snapshot was deleted since it was chosen: run the partition again",
    "DBClusterNotFoundFault": "`source.cluster` names no cluster of this account and Region",
    "IamRoleNotFound": "`export_role` names no role of the account in which the task runs",
    "IamRoleMissingPermissions": f"`export_role` needs {_ROLE_POLICY}; {_TRUST}",
    "InvalidExportOnly": "a database, schema or table in `tables` is not in the snapshot, or its name has characters "
    "that partial exports do not support: say `tables: all`",
    "InvalidExportSourceState": "the snapshot is not available, or another task is exporting it",
    "InvalidS3BucketFault": "`bucket` does not exist, lies in another Region than the snapshot, or RDS may not use it",
    "KMSKeyNotAccessibleFault": f"`kms_key`: {_KMS}",
}

_FAILURES = (
    ("region", "the bucket must lie in the snapshot's Region: change `bucket`, or copy the snapshot to its Region"),
    ("assume", f"`export_role` cannot be assumed: {_TRUST}"),
    ("permissions_do_not_exist", "the master user lacks rights on tables: GRANT ALL PRIVILEGES ON ALL TABLES IN SCHEMA "
     "… TO the master user"),
    ("kms key", f"`kms_key`: {_KMS}; a key policy with Deny must exempt export.rds.amazonaws.com"),
    ("s3 credentials", f"`export_role` needs {_ROLE_POLICY}"),
    ("isn't authorized", f"`export_role` needs {_ROLE_POLICY}"),
    ("not authorized", f"`export_role` needs {_ROLE_POLICY}"),
    ("isn't valid", "`bucket` does not exist in the Region of the snapshot"),
    ("500 mb", "a value near 500 MB cannot be exported: leave its table out of `tables`"),
    ("large object", "a value near 500 MB cannot be exported: leave its table out of `tables`"),
    ("internal error", "a fault inside AWS: run the partition again, and ask AWS support if it comes back"),
)  # fmt: skip

# A wait of hours sees these once in a while; the task itself goes on.
_TRANSIENT = {
    "ExpiredToken",
    "ExpiredTokenException",
    "RequestExpired",
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "TooManyRequestsException",
    "InternalFailure",
    "InternalError",
    "ServiceUnavailable",
    "RequestTimeout",
}


class ExportError(Exception):
    """An export cannot be started, or did not end well. `retryable` is true where another attempt can succeed."""

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


def code_of(error: ClientError) -> str:
    """AWS's error code."""
    return str(error.response.get("Error", {}).get("Code", ""))


def text_of(error: ClientError) -> str:
    """AWS's message."""
    return str(error.response.get("Error", {}).get("Message", ""))


def refusal(error: ClientError, *, identifier: str, source_arn: str, role: str) -> ExportError:
    """`start_export_task` said no: the error to raise, with AWS's words and what mends it."""
    code, message = code_of(error), text_of(error)
    advice = _REFUSALS.get(code, "")
    if code in ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation"):
        if "passrole" in message.lower():
            advice = f"allow iam:PassRole on {role} to whoever runs this (condition iam:PassedToService = "
            advice += "export.rds.amazonaws.com)"
        else:
            advice = "allow rds:StartExportTask, rds:DescribeExportTasks, kms:CreateGrant and kms:DescribeKey"
    retryable = code in ("DBClusterSnapshotNotFoundFault", "DBSnapshotNotFound", "InvalidExportSourceState")
    return ExportError(
        f"AWS refused export {identifier} of {source_arn}: {message or code} [{code}]."
        + (f" What to do: {advice}." if advice else ""),
        retryable=retryable or code in _TRANSIENT,
    )


def failure_advice(cause: str) -> tuple[str, bool]:
    """What mends a FAILED task with this FailureCause ("" where unknown), and whether a retry alone may help."""
    lower = cause.lower()
    for words, advice in _FAILURES:
        if words in lower:
            return advice, words == "internal error"
    return "", True


def is_limit(error: ClientError) -> bool:
    """The five-tasks limit. Its code is in no API model, so any code or text that speaks of a limit counts."""
    code, message = code_of(error), text_of(error).lower()
    if code in _TRANSIENT or code in _REFUSALS or "denied" in code.lower():
        return False
    words = ("limit", "quota", "maximum number", "concurrent", "too many")
    return any(word in code.lower() for word in ("limit", "quota")) or any(word in message for word in words)


def is_transient(error: BaseException) -> bool:
    """True for faults of the moment: throttling, an expired session about to be renewed, a lost connection."""
    if isinstance(error, ClientError):
        return code_of(error) in _TRANSIENT
    return type(error).__name__ in ("EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError",
                                    "ConnectionClosedError", "CredentialRetrievalError")  # fmt: skip
