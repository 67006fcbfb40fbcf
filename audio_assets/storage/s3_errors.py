"""Doing a request to S3 again: which failures pass, how long to wait, when to give up.

Not the store client's own retries: those cannot be counted, do not renew credentials, and do not know what an
object should look like.
"""

import re

from botocore.exceptions import ClientError

EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"}
# What is mended in the settings, or in the account that they name.
_CREDENTIALS = EXPIRED | {
    *("AuthorizationHeaderMalformed", "InvalidAccessKeyId", "InvalidClientTokenId", "InvalidToken"),
    *("RequestTimeTooSkewed", "SignatureDoesNotMatch", "Unauthorized"),
}
_ARCHIVED = "InvalidObjectState"
# What S3 refuses by these is mended by asking again, unlike all else that it answers with 4xx.
PASSING = {
    *("BadDigest", "ConditionalRequestConflict", "IncompleteBody", "OperationAborted", "RequestTimeout"),
    "XAmzContentSHA256Mismatch",
}
_PASSING_STATUS = {408, 429}


def error_code(e: Exception) -> str | None:
    """What S3 calls the error, None where it was not S3 that failed."""
    if isinstance(e, ClientError):
        return e.response.get("Error", {}).get("Code")
    found = re.search(r"<Code>(.*?)</Code>", str(e))
    return found[1] if found else None


def may_pass(e: Exception) -> bool:
    """Whether asking again can help, the credentials being valid: S3 answered that it cannot now, the
    connection broke, or what came is damaged."""
    status = _status(e)
    refused = status is not None and 400 <= status < 500 and status not in _PASSING_STATUS
    return not refused or error_code(e) in PASSING


def may_be_one_object(e: Exception) -> bool:
    """Whether S3's refusal can be of one object and not of others: an archived one, or one that a policy or a
    key of KMS keeps from the account."""
    return not may_pass(e) and error_code(e) not in _CREDENTIALS


def reason(e: Exception) -> str:
    """What S3 answered where it did, else the first line of an exception; never a secret.

    S3 repeats an expired session token in its answer, and HTTP clients repeat URLs with the password in them.
    So nothing else of the answer is shown, and errors made from this are raised without their cause.
    """
    if isinstance(e, ClientError):
        said = ": ".join(v for k in ("Code", "Message") if (v := e.response.get("Error", {}).get(k)))
    elif answer := re.search(r"<Code>(.*?)</Code>\s*(?:<Message>(.*?)</Message>)?", str(e), re.DOTALL):
        said = ": ".join(part for part in answer.groups() if part)
    else:
        said = str(e).strip().partition("\n")[0]
    said = re.sub(r"(?<=://)[^/@\s]*@", "…@", said) or type(e).__name__
    said = said.rstrip(".")
    if error_code(e) == _ARCHIVED:
        said += "; restore it from the archive"
    elif error_code(e) in _CREDENTIALS or _status(e) in (401, 403):
        said += "; mend AWS_PROFILE or AWS_ACCESS_KEY_ID and its like, or what they may do there"
    elif "error sending request" in said:
        said += "; is the server up, and AWS_ENDPOINT_URL_S3 right?"
    return said


def _status(e: Exception) -> int | None:
    if isinstance(e, ClientError):
        return e.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    found = re.search(r"status code: (\d{3})", str(e))
    return int(found[1]) if found else None
