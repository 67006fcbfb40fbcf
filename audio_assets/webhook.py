"""A message to a webhook, as Slack, Mattermost, Discord (`…/slack`), Google Chat and their kin take it.

What is said, and when, does not belong here.
"""

import json
import urllib.error
import urllib.request
from http.client import HTTPException

from audio_assets.errors import NotificationError

SECONDS = 10


def post(url: str, text: str) -> None:
    """POST `{"text": text}`.

    Args:
        url: http or https. It is a secret, and part of no error.

    Raises:
        NotificationError: nobody has taken the message.
    """
    body = json.dumps({"text": text}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=SECONDS):
            return
    except urllib.error.HTTPError as e:
        said = f"it answers {e.code} {e.reason}"
    except urllib.error.URLError as e:
        said = str(e.reason)
    except (HTTPException, OSError) as e:
        said = type(e).__name__
    # Not chained: some of these errors repeat the URL.
    raise NotificationError(f"cannot reach the webhook: {said}")
