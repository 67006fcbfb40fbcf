"""How a request that failed is tried again: exponential backoff with jitter, counted, and by what failed.

The clients' own retries are off: those cannot be counted, do not renew credentials, and do not know what an
object should look like. The backend says what a failure means.
"""

import dataclasses
import itertools
import logging
import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from audio_assets.errors import ConflictError, ObjectChangedError, ObjectRefusedError, StorageError
from audio_assets.storage.types import STALL_S, Backend, Failure

T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class RetryPolicy:
    """How often and how patiently a store is asked.

    Attributes:
        attempts: for one object or one page of a listing, the first included.
        stall_s: seconds without a byte after which a connection is given up.
    """

    attempts: int = 10
    stall_s: float = STALL_S

    def pause(self, failures: int) -> float:
        """Seconds to wait after so many failures: exponential backoff with jitter.

        0.1, 0.2, 0.4 … 15 s, each shortened by up to a half at random, so that clients that failed together
        do not come back together.
        """
        return min(0.1 * 2 ** (failures - 1), 15.0) * random.uniform(0.5, 1.0)


class Retrying:
    """Makes the requests of one store.

    Args:
        backend: says what a failure means, and renews credentials.
        policy: how often, and how long to wait between.
        named: the end of errors that concern the place rather than one object, such as ` (AUDIO_TABLE_URI)`.
    """

    def __init__(self, backend: Backend, policy: RetryPolicy, named: str) -> None:
        self._backend = backend
        self._policy = policy
        self._named = named

    def request(
        self,
        what: str,
        key: str,
        ask: Callable[[], T],
        retried: Callable[[str], object] | None = None,
        *,
        may_be_refused: bool = False,
    ) -> T:
        """Make a request until it is answered.

        Args:
            what: for the error, such as `cannot read`.
            ask: makes the request once.
            retried: told the reason of each failure that is followed by another attempt.
            may_be_refused: whether a failure of this object alone is an ObjectRefusedError.

        Raises:
            ConflictError, ObjectChangedError, ObjectRefusedError: the answer, as `ask` raises it.
            StorageError: it failed for good.
        """
        for failures in itertools.count(1):
            began = time.monotonic()
            try:
                return ask()
            except (ConflictError, ObjectChangedError, ObjectRefusedError):
                raise
            except StorageError as e:
                raise StorageError(f"{e}{self._named}") from None
            except Exception as e:
                failure = self._backend.failure(e)
                why = self._backend.reason(e)
            # Raised out here, without a cause: a client's own error may hold a secret.
            if not self._passes(failure, began) or failures >= self._policy.attempts:
                times = f" ({failures} attempts)" if failures > 1 else ""
                said = f"{what} {self._backend.uri}/{key}: {why}{times}"
                if may_be_refused and failure is Failure.ONE_OBJECT:
                    raise ObjectRefusedError(said)
                raise StorageError(f"{said}{self._named}")
            _log.warning("%s %s/%s: %s; trying again", what, self._backend.uri, key, why)
            if retried:
                retried(why)
            time.sleep(self._policy.pause(failures))
        raise AssertionError("unreachable")

    def _passes(self, failure: Failure, began: float) -> bool:
        """Whether the same request may fare better; renews credentials that have expired since it began."""
        if failure is Failure.EXPIRED:
            return self._backend.renew_credentials(began)
        return failure is Failure.PASSING

    def resumed(self, what: str, key: str, open_rest: Callable[[T | None], Iterator[T]]) -> Iterator[T]:
        """The items of an iterator that may fail in the middle. Each item has attempts of its own.

        Args:
            open_rest: opens the iterator after the last item that came, given None at its beginning; called
                again after each failure.

        Raises:
            StorageError: it failed for good.
        """
        items: Iterator[T] | None = None
        last: T | None = None

        def next_item() -> T | None:
            nonlocal items
            try:
                if items is None:
                    items = open_rest(last)
                return next(items, None)
            except Exception:
                items = None
                raise

        while (item := self.request(what, key, next_item)) is not None:
            yield item
            last = item
