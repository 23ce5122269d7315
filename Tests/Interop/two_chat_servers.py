"""One device, two chat servers: two_chat_servers.py FIRST_PORT SECOND_PORT FANOUT_PROGRAM.

The device opens a session on the second server while it has one on the first, which must be closed with 4003; then back
again, and on and on. What is said meanwhile reaches it once and in order, whichever server it is at, and none of it from
History.
"""

import asyncio
import json
import os
import subprocess
import sys
import urllib.request
import uuid

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

ports, fanout = [int(sys.argv[1]), int(sys.argv[2])], sys.argv[3]
ada, bob, device = str(uuid.uuid4()), str(uuid.uuid4()), uuid.uuid4()
for user in [ada, bob]:
    sql = f"INSERT INTO users (user_id, name) VALUES ('{user}', 'somebody')"
    subprocess.run(["psql", os.environ["FANOUT_POSTGRES"], "-qXv", "ON_ERROR_STOP=1", "-c", sql], check=True)
tokens = {
    user: subprocess.run([fanout, "token", "--user", user], check=True, capture_output=True, text=True).stdout.strip()
    for user in [ada, bob]}


def get(port, path, body=None):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data=json.dumps(body).encode() if body else None,
        headers={"Authorization": f"Bearer {tokens[ada]}"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.read().decode()


async def open_session(port, user, device, cursor=None):
    socket = await connect(
        f"ws://127.0.0.1:{port}/v1/ws?device={device}", additional_headers={"Authorization": f"Bearer {tokens[user]}"},
        subprotocols=["fanout.v1"])
    await socket.send(json.dumps({"type": "hello"} | ({"cursor": cursor} if cursor else {})))
    return socket


class Seen:
    """What the device has been shown, and the cursor it goes on with."""
    cursor, texts = None, []

    def take(self, frame):
        self.cursor = frame.get("cursor", self.cursor)
        if frame["type"] == "message":
            self.texts.append(frame["text"])
        return frame["type"]


async def until(socket, condition):
    while True:
        frame = json.loads(await asyncio.wait_for(socket.recv(), 30))
        if condition(frame):
            return


async def main():
    chat = json.loads(get(ports[0], "/v1/chats", {"kind": "group", "title": "t", "members": [bob]}))["chat"]
    seen, said = Seen(), 0
    speaker = await open_session(ports[0], bob, uuid.uuid4())
    await until(speaker, lambda frame: frame["type"] == "caught_up")
    here = await open_session(ports[0], ada, device)
    await until(here, lambda frame: seen.take(frame) == "caught_up")

    async def say(count):
        nonlocal said
        for _ in range(count):
            said += 1
            frame = {"type": "send", "id": str(uuid.uuid4()), "chat": chat, "text": str(said)}
            await speaker.send(json.dumps(frame))
            await until(speaker, lambda answer: answer["type"] == "sent")

    for turn in range(1, 7):
        await say(5)
        await until(here, lambda frame: seen.take(frame) == "message" and frame["text"] == str(said))
        there = await open_session(ports[turn % 2], ada, device, seen.cursor)
        try:
            while True:
                frame = json.loads(await asyncio.wait_for(here.recv(), 30))
                assert frame["type"] != "message", f"the old session got {frame}"
        except ConnectionClosed as closed:
            assert closed.rcvd.code == 4003, closed
        await until(there, lambda frame: seen.take(frame) == "caught_up")
        here = there
        # Cut off for a while, without a word, and back at the other server: from the hot window.
        await say(1)
        await until(here, lambda frame: seen.take(frame) == "message")
        here.transport.abort()
        await say(20)
        here = await open_session(ports[turn % 2], ada, device, seen.cursor)
        await until(here, lambda frame: seen.take(frame) == "caught_up")
    await say(1)
    await until(here, lambda frame: seen.take(frame) == "message" and frame["text"] == str(said))
    assert seen.texts == [str(number + 1) for number in range(said)], seen.texts
    metrics = "".join(get(port, "/metrics") for port in ports)
    totals = {}
    for line in metrics.splitlines():
        name, _, value = line.rpartition(" ")
        if name in ("fanout_ingest_fills_total", "fanout_ingest_history_fills_total"):
            totals[name] = totals.get(name, 0) + float(value)
    assert totals["fanout_ingest_history_fills_total"] == 0 and totals["fanout_ingest_fills_total"] >= 6, totals
    print(f"6 sessions closed with 4003, {said} messages once and in order, {totals}")


asyncio.run(main())
