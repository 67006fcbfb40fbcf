"""The way to a bucket: obstore for bytes, boto3 where obstore cannot, and the credentials of both."""

import base64
import datetime as dt
import hashlib
import logging
import threading
import time
from typing import Any

import boto3
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.store import S3Store

from audio_assets.storage.s3_errors import reason
from audio_assets.storage.types import BackendOptions

# boto3 renews what is valid for less than 10 minutes; a copy may be kept for no longer.
_CREDENTIALS_TTL = dt.timedelta(minutes=5)

_log = logging.getLogger(__name__)


class S3Connection:
    """The clients of a bucket, neither of which asks S3 twice: `ObjectStore` counts the attempts.

    Args:
        prefix: of all keys, without a slash at the end; may be empty.
        options: session, endpoint and patience. Without an endpoint, boto3 finds AWS_ENDPOINT_URL_S3 and
            AWS_ENDPOINT_URL.

    Attributes:
        store: obstore's client; another one once the credentials have been renewed.

    Raises:
        BotoCoreError, ValueError: the settings of AWS name no account or server.
    """

    def __init__(self, bucket: str, prefix: str, options: BackendOptions) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self.root = f"{prefix}/" if prefix else ""
        """What every key in the bucket begins with."""
        self._open_session = options.open_session or boto3.Session
        self._endpoint_url = options.endpoint_url
        self._stall_s = options.stall_s
        self._connecting = threading.Lock()
        self._connect()

    def get_object(self, key: str, **options: Any) -> bytes:
        """An object by boto3, which takes any key."""
        return self._client.get_object(Bucket=self._bucket, Key=self.root + key, **options)["Body"].read()

    def put_file(self, key: str, path: str, **options: Any) -> str:
        """Write an object from a local file, piece by piece, by boto3; gives its ETag without quotes."""
        with open(path, "rb") as file:
            # S3 compares it. With it, boto3 adds no checksum of its own, which not every server knows.
            digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).digest()
            file.seek(0)
            answer = self._client.put_object(
                Bucket=self._bucket,
                Key=self.root + key,
                Body=file,
                ContentMD5=base64.b64encode(digest).decode(),
                **options,
            )
        return answer["ETag"].strip('"')

    def delete_object(self, key: str, **options: Any) -> None:
        """Delete an object by boto3, which can do so under a condition."""
        self._client.delete_object(Bucket=self._bucket, Key=self.root + key, **options)

    def list_objects(self, folder: str, **options: Any) -> dict[str, Any]:
        """The answer of boto3's `list_objects_v2`, which gives any key as it is."""
        return self._client.list_objects_v2(Bucket=self._bucket, Prefix=self.root + folder, **options)

    def _connect(self) -> None:
        session = self._open_session()
        once = Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=self._stall_s)
        client = session.client("s3", endpoint_url=self._endpoint_url, config=once)
        credentials = session.get_credentials()
        self._credentials = credentials.get_frozen_credentials() if credentials else None
        self._client: Any = client
        self.store = self._open_store(session, client)
        self._connected = time.monotonic()

    def _open_store(self, session: boto3.Session, client: BaseClient) -> S3Store:
        endpoint = client.meta.endpoint_url
        elsewhere: dict[str, Any] = {} if "amazonaws.com" in endpoint else {"endpoint": endpoint}
        region = client.meta.region_name
        return S3Store(
            self._bucket,
            prefix=self._prefix or None,
            **elsewhere,
            # What S3 answers for where nothing is set.
            region="us-east-1" if region in (None, "aws-global") else region,
            credential_provider=Boto3CredentialProvider(session, ttl=_CREDENTIALS_TTL)
            if self._credentials
            else None,
            # Public buckets are read without an account, as `aws s3 --no-sign-request` does.
            skip_signature=not self._credentials,
            # A large object may take long as long as bytes come: what is bounded is the silence between them.
            client_options={
                "allow_http": True,
                "timeout": "1day",
                "read_timeout": dt.timedelta(seconds=self._stall_s),
            },
            retry_config={"max_retries": 0},
        )

    def renew(self, since: float) -> bool:
        """Ask for credentials again, unless another thread did so `since`, a moment of `time.monotonic`.

        Returns:
            Whether the same request may fare better now.
        """
        with self._connecting:
            if self._connected > since:
                return True
            expired = self._credentials
            try:
                self._connect()
            except (BotoCoreError, ValueError) as e:
                _log.warning("cannot renew credentials of s3://%s: %s", self._bucket, reason(e))
                return True
            return self._credentials != expired
