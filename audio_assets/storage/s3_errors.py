"""What each error of S3 means.

    code, status or what happened                   what happens then
    ----------------------------------------------  --------------------------------------------------------
    PreconditionFailed (412), NoSuchKey (404)       an answer: the object is gone or has another version
    ExpiredToken and its like                       renew the credentials, then ask again
    any status >= 500, 408 or 429, SlowDown,        ask again: S3 cannot now
      BadDigest, RequestTimeout and their like
    no answer, a broken one, damaged bytes          ask again
    AccessDenied, InvalidObjectState, any other     this object is refused; S3 may give others
      status 4xx
    InvalidAccessKeyId, SignatureDoesNotMatch       fails: the settings or the account have to be mended
      and their like, NoSuchBucket

The codes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html. `retry` decides how long to
wait and when to give up.
"""

import re

from botocore.exceptions import ClientError
from obstore.exceptions import InvalidPathError

from audio_assets.storage.types import Failure

RENEW_CREDENTIALS = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"}
# What is mended in the settings, or in the account that they name.
_CREDENTIALS = RENEW_CREDENTIALS | {
    *("AuthorizationHeaderMalformed", "InvalidAccessKeyId", "InvalidClientTokenId", "InvalidToken"),
    *("RequestTimeTooSkewed", "SignatureDoesNotMatch", "Unauthorized"),
}
_FAILS = _CREDENTIALS | {"NoSuchBucket"}
_ARCHIVED = "InvalidObjectState"
# What S3 refuses by these is mended by asking again, unlike all else that it answers with 4xx.
_ASK_AGAIN = {
    *("BadDigest", "ConditionalRequestConflict", "IncompleteBody", "OperationAborted", "RequestTimeout"),
    "XAmzContentSHA256Mismatch",
}
_ASK_AGAIN_STATUS = {408, 429}


def failure(e: Exception) -> Failure:
    """What to do about an exception of boto3 or obstore; the table above."""
    code = error_code(e)
    if code in RENEW_CREDENTIALS:
        return Failure.EXPIRED
    if _can_be_asked_again(e):
        return Failure.PASSING
    return Failure.LASTING if code in _FAILS else Failure.ONE_OBJECT


def _can_be_asked_again(e: Exception) -> bool:
    if isinstance(e, InvalidPathError):
        return False
    status = _status(e)
    refused = status is not None and 400 <= status < 500 and status not in _ASK_AGAIN_STATUS
    return not refused or error_code(e) in _ASK_AGAIN


def says_gone_or_changed(e: Exception) -> bool:
    """Whether S3's answer to a read under If-Match is that the object is gone or has another version.

    Args:
        e: what obstore raises for 404, 412 and 304, or any ClientError of boto3.
    """
    if isinstance(e, ClientError):
        return _status(e) in (404, 412)
    return error_code(e) not in _ASK_AGAIN


def says_gone(e: Exception) -> bool:
    """Whether S3's answer to a read is that there is no such object, rather than another version."""
    return isinstance(e, FileNotFoundError) or _status(e) == 404


def says_changed(e: ClientError) -> bool:
    """Whether S3's answer to a conditional DELETE is that the object has another version."""
    return _status(e) in (409, 412) and error_code(e) not in _ASK_AGAIN


def says_forbidden(e: ClientError) -> bool:
    """Whether S3's answer is that the account may not do this, rather than that credentials are wrong."""
    return _status(e) == 403 and error_code(e) not in (*_CREDENTIALS, *_ASK_AGAIN)


def says_conflict(e: Exception) -> bool:
    """Whether S3's answer to a conditional PUT is that the object is there, gone, or another version.

    Args:
        e: what obstore raises for 404, 409 and 412.
    """
    if isinstance(e, FileNotFoundError):
        return error_code(e) == "NoSuchKey"
    return error_code(e) not in _ASK_AGAIN


def says_conflict_of(e: ClientError) -> bool:
    """As `says_conflict`, of a conditional PUT by boto3."""
    if _status(e) == 404:
        return error_code(e) == "NoSuchKey"
    return says_changed(e)


def may_be_of_names(e: Exception) -> bool:
    """Whether obstore cannot read a listing that came, as where it holds a name that obstore refuses."""
    return isinstance(e, InvalidPathError) or "invalid list response" in str(e)


def error_code(e: Exception) -> str | None:
    """What S3 calls the error, None where it was not S3 that failed."""
    if isinstance(e, ClientError):
        return e.response.get("Error", {}).get("Code")
    found = re.search(r"<Code>(.*?)</Code>", str(e))
    return found[1] if found else None


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
