"""Notifications of S3: which objects were created and removed, read from an SQS queue.

An event says where to look, never what is there: it may come twice, late, in another order or not at all.
What a tick does with events is in `marked_folders.py`.
"""

import concurrent.futures
import dataclasses
import json
import logging
import re
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import boto3
from botocore.client import BaseClient
from botocore.exceptions import BotoCoreError, ClientError

from audio_assets.errors import EventQueueError
from audio_assets.storage.s3_errors import reason

READERS = 8
# What SQS gives and takes in one request.
MESSAGES_AT_A_TIME = 10
MESSAGES_PER_TICK = 5_000
READING_SECONDS = 5
# A message that was read is deleted by the next tick; it becomes visible again only if that tick is lost.
VISIBILITY_TIMEOUT_S = 300

_EVENTBRIDGE = {"Object Created": False, "Object Deleted": True}

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Event:
    """Something happened to an object.

    Attributes:
        key: in the bucket.
        removed: rather than created or overwritten.
    """

    bucket: str
    key: str
    removed: bool


@dataclasses.dataclass(frozen=True)
class Received:
    """The messages that one tick has read.

    Attributes:
        events: in no order.
        receipts: by which the messages that held them can be deleted.
    """

    events: list[Event]
    receipts: list[str]


def parse_message(body: str) -> list[Event]:
    """Read a message, as S3 sends it, as SNS passes it on, or as EventBridge writes it.

    Returns:
        The objects that were created or removed; none of a test message.

    Raises:
        ValueError: it is nothing of the kind.
    """
    try:
        said = json.loads(body)
        if "Records" not in said and isinstance(said.get("Message"), str):
            said = json.loads(said["Message"])
        if said.get("Event") == "s3:TestEvent":
            return []
        if (kind := said.get("detail-type")) in _EVENTBRIDGE:
            detail = said["detail"]
            # EventBridge does not encode keys.
            return [Event(detail["bucket"]["name"], str(detail["object"]["key"]), _EVENTBRIDGE[kind])]
        return list(_records(said["Records"]))
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise ValueError(f"no notification of S3: {type(e).__name__}: {e}") from e


def _records(records: list[Any]) -> Iterator[Event]:
    for record in records:
        # "s3:" stands before the names of some stores other than AWS.
        kind, _, _ = record["eventName"].removeprefix("s3:").partition(":")
        # A tag or a restored archive changes no row; an expired object is one that is removed.
        if kind in ("ObjectCreated", "ObjectRemoved", "LifecycleExpiration"):
            s3 = record["s3"]
            key = urllib.parse.unquote_plus(s3["object"]["key"])
            yield Event(s3["bucket"]["name"], key, kind != "ObjectCreated")


class EventQueue:
    """The queue that the bucket's notifications go to.

    Args:
        url: of the queue.
        open_session: where credentials and region come from; the region else from the URL. A queue elsewhere
            than on AWS is found as every AWS client does, by AWS_ENDPOINT_URL_SQS or AWS_ENDPOINT_URL.
        setting: what errors name beside the URL, such as the variable that it comes from.

    Raises:
        EventQueueError: there is no such region, or no credentials.
    """

    def __init__(
        self, url: str, open_session: Callable[[], boto3.Session] = boto3.Session, *, setting: str = ""
    ) -> None:
        self.url = url
        self._named = f"{url} ({setting})" if setting else url
        # Receipts of messages that were read, and the cursor that marks what they told of.
        self._unacknowledged: tuple[str, list[str]] | None = None
        session = open_session()
        region = re.search(r"sqs\.([a-z0-9-]+)\.amazonaws\.", url)
        try:
            self._client: BaseClient = session.client(
                "sqs", region_name=session.region_name or (region and region[1])
            )
        except (BotoCoreError, ValueError) as e:
            raise self._error(e) from None

    def receive(self) -> Received:
        """Read what is there, for a bounded time and up to a bounded number; it stays in the queue.

        What is no notification is logged, and its message is among those to be deleted: it would come again
        for ever, and what it was to say is found by the next full scan.

        Raises:
            EventQueueError: the queue cannot be read.
        """
        ends = time.monotonic() + READING_SECONDS
        events: list[Event] = []
        receipts: list[str] = []

        def read() -> None:
            while time.monotonic() < ends and len(receipts) < MESSAGES_PER_TICK:
                messages = self._ask(
                    self._client.receive_message,
                    MaxNumberOfMessages=MESSAGES_AT_A_TIME,
                    VisibilityTimeout=VISIBILITY_TIMEOUT_S,
                ).get("Messages", [])
                if not messages:
                    return
                for message in messages:
                    events.extend(self._events(message))
                    receipts.append(message["ReceiptHandle"])

        with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
            for reader in [pool.submit(read) for _ in range(READERS)]:
                reader.result()
        return Received(events, receipts)

    def delete_once_held(self, receipts: list[str], cursor: str) -> None:
        """Have messages deleted once the instance holds `cursor`, which marks what they told of."""
        self._unacknowledged = cursor, receipts

    def delete_held(self, cursor: str | None) -> None:
        """Delete the messages of the last tick if the instance holds the cursor that it gave.

        Those of a tick that was lost come again, after the visibility timeout.

        Raises:
            EventQueueError: the queue does not answer.
        """
        last = self._unacknowledged
        self._unacknowledged = None
        if last is not None and last[0] == cursor and last[1]:
            self.delete(last[1])

    def delete(self, receipts: Sequence[str]) -> None:
        """Delete messages that were received. One that cannot be deleted comes again, which does no harm.

        Raises:
            EventQueueError: the queue does not answer.
        """

        def delete(some: Sequence[str]) -> None:
            entries = [{"Id": str(i), "ReceiptHandle": receipt} for i, receipt in enumerate(some)]
            self._ask(self._client.delete_message_batch, Entries=entries)

        parts = [receipts[at : at + MESSAGES_AT_A_TIME] for at in range(0, len(receipts), MESSAGES_AT_A_TIME)]
        with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
            list(pool.map(delete, parts))

    def _events(self, message: Mapping[str, str]) -> list[Event]:
        try:
            return parse_message(message["Body"])
        except ValueError as e:
            _log.warning("message %s of %s: %s", message["MessageId"], self.url, e)
            return []

    def _ask(self, method: Callable[..., Any], **options: Any) -> Any:
        try:
            return method(QueueUrl=self.url, **options)
        except (BotoCoreError, ClientError) as e:
            raise self._error(e) from None

    def _error(self, e: Exception) -> EventQueueError:
        return EventQueueError(f"cannot read the queue {self._named}: {reason(e)}")
