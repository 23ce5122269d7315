"""Two devices talk while topics are deleted and made again: topics_made_again.py PORT FANOUT_PROGRAM TOPIC…

Each topic is deleted under the running stages and made again. Whatever was said before had arrived, so nothing is lost by
definition; what is said after arrives within seconds, once and in order, and seq goes on upward. With the topic "none"
nothing is deleted here: a line on standard input says that somebody else has lost the log.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
import uuid

from confluent_kafka.admin import AdminClient
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

port, fanout, topics = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
ada, bob = str(uuid.uuid4()), str(uuid.uuid4())
for user in [ada, bob]:
    sql = f"INSERT INTO users (user_id, name) VALUES ('{user}', 'somebody')"
    subprocess.run(["psql", os.environ["FANOUT_POSTGRES"], "-qXv", "ON_ERROR_STOP=1", "-c", sql], check=True)
tokens = {
    user: subprocess.run([fanout, "token", "--user", user], check=True, capture_output=True, text=True).stdout.strip()
    for user in [ada, bob]}


def get(path, body=None):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data=json.dumps(body).encode() if body else None,
        headers={"Authorization": f"Bearer {tokens[ada]}"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read())


class Device:
    """A client as the protocol asks for: it resumes from its cursor, and sends again what was not answered."""

    def __init__(self, user, chat):
        self.chat = chat
        self.user, self.device, self.cursor, self.socket = user, uuid.uuid4(), None, None
        self.messages, self.known, self.sent, self.resets = [], [], {}, 0
        self.highest = -1

    async def run(self):
        while True:
            try:
                async with connect(
                    f"ws://127.0.0.1:{port}/v1/ws?device={self.device}",
                    additional_headers={"Authorization": f"Bearer {tokens[self.user]}"}, subprotocols=["fanout.v1"],
                ) as socket:
                    hello = {"type": "hello"} | ({"cursor": self.cursor} if self.cursor else {})
                    await socket.send(json.dumps(hello))
                    self.socket = socket
                    async for text in socket:
                        self.take(json.loads(text))
            except (ConnectionClosed, OSError):
                await asyncio.sleep(0.1)

    def take(self, frame):
        self.cursor = frame.get("cursor", self.cursor)
        if frame["type"] == "message":
            # As the protocol says: what is not above the highest of its chat has been seen.
            if frame["seq"] > self.highest:
                self.highest = frame["seq"]
                self.messages.append(frame)
            else:
                self.known.append((frame["seq"], frame["text"]))
        elif frame["type"] == "sent":
            self.sent[frame["id"]] = frame["seq"]
        elif frame["type"] == "caught_up" and frame.get("reset"):
            self.resets += 1
            self.highest = -1
            self.reload()

    def reload(self):
        """What a device that has lost its place finds by HTTP, in place of what it was not sent."""
        for frame in get(f"/v1/chats/{self.chat}/messages?limit=100")["messages"]:
            self.highest = max(self.highest, frame["seq"])
            if frame["id"] not in {message["id"] for message in self.messages}:
                self.messages.append(frame)

    async def say(self, chat, text, seconds=40):
        """Until the log has it, under one id."""
        identity, end = str(uuid.uuid4()), time.monotonic() + seconds
        while identity not in self.sent:
            assert time.monotonic() < end, f"{text} was not acknowledged"
            try:
                await self.socket.send(json.dumps({"type": "send", "id": identity, "chat": chat, "text": text}))
            except ConnectionClosed:
                pass
            again = time.monotonic() + 2
            while identity not in self.sent and time.monotonic() < again:
                await asyncio.sleep(0.002)
        return self.sent[identity]


async def until(condition, what, seconds=40):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what()
        await asyncio.sleep(0.005)


def make_again(topic):
    admin = AdminClient({"bootstrap.servers": os.environ["FANOUT_KAFKA"]})
    admin.delete_topics([topic])[topic].result()
    subprocess.run([fanout, "topics", "create", "--partitions", "4"], check=True, capture_output=True)


async def main():
    chat = get("/v1/chats", {"kind": "group", "title": "t", "members": [bob]})["chat"]
    reader, speaker = Device(ada, chat), Device(bob, chat)
    tasks = [asyncio.create_task(reader.run()), asyncio.create_task(speaker.run())]
    await until(lambda: reader.cursor and speaker.cursor, lambda: "no session")
    said = 0

    async def talk(count):
        nonlocal said
        for _ in range(count):
            said += 1
            await speaker.say(chat, str(said))
        await until(
            lambda: any(m["text"] == str(said) for m in reader.messages),
            lambda: f"{said} did not arrive; last came {[m['text'] for m in reader.messages[-3:]]}, the highest seq is "
            f"{reader.highest}; not above it were {reader.known[-3:]}")

    await talk(50)
    for topic in topics:
        before = reader.highest
        if topic.startswith("until:"):
            print("waiting for the log to be lost", flush=True)
            while not os.path.exists(topic.removeprefix("until:")):
                await asyncio.sleep(0.01)
        else:
            await asyncio.get_running_loop().run_in_executor(None, make_again, topic)
        start = time.monotonic()
        await talk(1)
        print(f"{topic}: delivery goes on {time.monotonic() - start:.2f} s after it was made again", flush=True)
        await talk(30)
        assert reader.highest > before, f"seq went back from {before} to {reader.highest}"
    texts = [m["text"] for m in reader.messages]
    # After a reset a device may be shown again what it has forgotten that it had.
    ids = list(dict.fromkeys(m["id"] for m in reader.messages))
    first = list(dict.fromkeys(texts))
    assert first == [str(number + 1) for number in range(said)], first
    assert len(ids) == said, "a message came under two ids"
    seqs = {m["text"]: m["seq"] for m in reader.messages}
    order = [seqs[str(number + 1)] for number in range(said)]
    assert order == sorted(set(order)), f"seq does not rise: {order}"
    # History stores behind what was delivered.
    last = lambda: get(f"/v1/chats/{chat}")["last_preview"]
    await until(lambda: last() == str(said), lambda: f"the conversation list has {last()} instead of {said}")
    assert get(f"/v1/chats/{chat}")["last_seq"] == order[-1]
    print(f"{said} messages once and in order, {reader.resets} resets", flush=True)
    for task in tasks:
        task.cancel()


asyncio.run(main())
