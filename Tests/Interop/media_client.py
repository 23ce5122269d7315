"""Puts and gets with presigned links, as a client does: media_client.py PUT_URL GET_URL TYPE TEXT."""

import sys
import urllib.error
import urllib.request

put, get, kind, text = sys.argv[1:5]


def ask(method, url, body=None, kind=None):
    request = urllib.request.Request(url, method=method, data=body, headers={"Content-Type": kind} if kind else {})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read(), answer.headers["Content-Type"]
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read(), None


# A store says 403 of what is not there to whoever may not list it: so does moto of a link that names a disposition.
MISSING = (403, 404)
body = text.encode()
assert ask("GET", get)[0] in MISSING, "there is nothing yet"
assert ask("PUT", put, body + b"!", kind)[0] == 403, "longer than was signed"
assert ask("PUT", put, body, "text/html")[0] == 403, "of another type than was signed"
assert ask("PUT", get, body, kind)[0] == 403, "a link to get does not put"
assert ask("PUT", put.replace("X-Amz-Expires=", "X-Amz-Expires=9"), body, kind)[0] == 403, "a link is good for its time only"
assert ask("GET", get)[0] in MISSING, "nothing of that was kept"
assert ask("PUT", put, body, kind)[0] == 200
assert ask("GET", get) == (200, body, kind), ask("GET", get)
assert ask("GET", get.split("?")[0])[0] == 403, "without a signature"
assert ask("GET", put)[0] == 403, "a link to put does not get"
print("everything holds")
