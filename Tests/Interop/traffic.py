"""Everything that people do, once: traffic.py CHAT_PORT FANOUT_PROGRAM [--on-and-on].

Makes users and a chat, then sends, edits, deletes, answers, types and reads, adds and removes members, is refused in several
ways, goes offline, and writes garbage. Returns when each topic has what that leads to. Prints the chat's and a user's id. With
--on-and-on somebody says something five times a second from then on, until killed.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid

import confluent_kafka
from websockets.asyncio.client import connect

port, fanout = int(sys.argv[1]), sys.argv[2]
kafka, database = os.environ["FANOUT_KAFKA"], os.environ["FANOUT_POSTGRES"]
users = {name: str(uuid.uuid4()) for name in ["ada", "bob", "cyd", "dan", "eve"]}


def sql(text):
    subprocess.run(["psql", database, "-qXv", "ON_ERROR_STOP=1", "-c", text], check=True)


def token(name):
    return subprocess.run([fanout, "token", "--user", users[name]], check=True, capture_output=True, text=True).stdout.strip()


def call(name, method, path, body=None):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", method=method, data=json.dumps(body).encode() if body else None,
        headers={"Authorization": f"Bearer {tokens[name]}"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        text = answer.read()
        return json.loads(text) if text else None


async def session(name):
    device = uuid.uuid4()
    socket = await connect(
        f"ws://127.0.0.1:{port}/v1/ws?device={device}", additional_headers={"Authorization": f"Bearer {tokens[name]}"},
        subprotocols=["fanout.v1"])
    await say(socket, type="hello")
    await until(socket, lambda frame: frame["type"] == "caught_up")
    return socket


async def say(socket, **frame):
    await socket.send(json.dumps(frame))


async def until(socket, condition):
    while True:
        frame = json.loads(await asyncio.wait_for(socket.recv(), 20))
        if condition(frame):
            return frame


async def ask(socket, **frame):
    """Sends a frame with an id of its own and waits for its answer."""
    name = str(uuid.uuid4())
    await say(socket, id=name, **frame)
    return await until(socket, lambda answer: answer["type"] in ("sent", "error") and answer.get("id") == name)


async def everything(chat):
    ada, bob = await session("ada"), await session("bob")
    await say(ada, type="watch", user=users["bob"])
    first = await ask(ada, type="send", chat=chat, text="hello \"world\" \u2603", attachments=[{"name": "a", "bytes": 7}])
    assert first["type"] == "sent", first
    seq = first["seq"]
    await ask(bob, type="send", chat=chat, text="hello yourself", reply_to=seq)
    # By then the join knows who is in the chat: it drops the signals of strangers.
    await until(ada, lambda frame: frame["type"] == "message" and frame.get("text") == "hello yourself")
    assert (await ask(ada, type="edit", chat=chat, seq=seq, text="hello, all"))["type"] == "sent"
    gone = await ask(ada, type="send", chat=chat, text="never mind", client_ts=int(time.time() * 1000))
    assert (await ask(ada, type="delete", chat=chat, seq=gone["seq"]))["type"] == "sent"
    await say(bob, type="typing", chat=chat)
    await say(bob, type="delivered", chat=chat, seq=seq)
    await say(bob, type="read", chat=chat, seq=seq)
    await until(ada, lambda frame: frame["type"] == "receipt" and frame["kind"] == "read")

    # Not theirs, not there, and no member.
    await ask(bob, type="edit", chat=chat, seq=seq, text="mine now")
    await ask(bob, type="delete", chat=chat, seq=10**9)
    await ask(bob, type="send", chat=str(uuid.uuid4()), text="anybody?")

    # The members change while people talk.
    call("ada", "PUT", f"/v1/chats/{chat}/members/{users['dan']}", {"role": "member"})
    await ask(ada, type="send", chat=chat, text="welcome")
    call("ada", "PUT", f"/v1/chats/{chat}/members/{users['dan']}", {"role": "admin"})
    call("ada", "DELETE", f"/v1/chats/{chat}/members/{users['dan']}")
    await ask(ada, type="send", chat=chat, text="and good-bye")
    other = call("ada", "POST", "/v1/chats", {"kind": "group", "title": "short-lived", "members": [users["eve"]]})["chat"]
    await ask(ada, type="send", chat=other, text="nobody will read this")
    call("ada", "DELETE", f"/v1/chats/{other}")
    call("bob", "POST", "/v1/chats", {"kind": "direct", "members": [users["eve"]]})
    sql(f"UPDATE users SET name = 'Ada Lovelace' WHERE user_id = '{users['ada']}'")
    sql(f"UPDATE users SET disabled = true WHERE user_id = '{users['eve']}'")
    sql(f"DELETE FROM users WHERE user_id = '{users['dan']}'")
    await bob.close()
    await until(ada, lambda frame: frame["type"] == "presence" and frame["status"] == "offline")
    return ada


def garbage(chat):
    """What no stage of ours would write."""
    producer = confluent_kafka.Producer({"bootstrap.servers": kafka, "partitioner": "murmur2_random"})
    for topic in ["chat.incoming", "chat.signals", "chat.deliveries", "chat.push"]:
        for value in [b"", b"no JSON", b"{", b"\xff\xfe", b"[1]"]:
            producer.produce(topic, key=chat, value=value, headers={"written-by": "traffic.py"})
    assert producer.flush(20) == 0


def wait_for(wanted):
    """Until each of these topics has at least so many records."""
    consumer = confluent_kafka.Consumer({"bootstrap.servers": kafka, "group.id": "traffic"})
    deadline = time.monotonic() + 60
    while True:
        counts = {}
        for topic in wanted:
            partitions = consumer.list_topics(topic, timeout=20).topics[topic].partitions
            marks = [consumer.get_watermark_offsets(confluent_kafka.TopicPartition(topic, p), timeout=20) for p in partitions]
            counts[topic] = sum(high for _, high in marks)
        if all(counts[topic] >= wanted[topic] for topic in wanted):
            return consumer.close()
        assert time.monotonic() < deadline, f"still only {counts}, not {wanted}"
        time.sleep(0.1)


async def main():
    chat = call("ada", "POST", "/v1/chats", {"kind": "group", "title": "Everything", "members": [users["bob"], users["cyd"]]})["chat"]
    ada = await everything(chat)
    garbage(chat)
    # Two of the refusals are known only to the join; cyd, who never came, is told of what was said, in vain.
    wait_for({
        "chat.incoming": 10, "chat.messages": 6, "chat.signals": 3, "chat.members": 12, "chat.users": 9, "chat.deliveries": 15,
        "chat.rejected": 6, "chat.presence": 3, "chat.push": 1, "chat.push.dead": 1, "chat.instances": 2})
    print(f"everything has happened: chat={chat} user={users['ada']}", flush=True)
    while "--on-and-on" in sys.argv:
        await ask(ada, type="send", chat=chat, text="on and on")
        await asyncio.sleep(0.2)
    await ada.close()


for name, user in users.items():
    sql(f"INSERT INTO users (user_id, name) VALUES ('{user}', '{name}')")
tokens = {name: token(name) for name in users}
asyncio.run(main())
