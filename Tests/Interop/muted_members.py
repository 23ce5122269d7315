"""A muted chat wakes nobody and is delivered all the same: muted_members.py CHAT_PORT FANOUT_PROGRAM.

Bob has muted the chat, Cyd has not, and both are offline when Ada speaks. chat.push tells of both, since Delivery
knows nothing of mutes; only Cyd is told. Nobody answers at the webhook here, so whoever is told is in chat.push.dead. Once Bob has
unmuted the chat he is told of what is said from then on, and his device gets everything, muted or not.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
import uuid

import confluent_kafka
from websockets.asyncio.client import connect

port, fanout = int(sys.argv[1]), sys.argv[2]
ada, bob, cyd, device = (str(uuid.uuid4()) for _ in range(4))


def sql(text):
    subprocess.run(["psql", os.environ["FANOUT_POSTGRES"], "-qXv", "ON_ERROR_STOP=1", "-c", text], check=True)


for user in [ada, bob, cyd]:
    sql(f"INSERT INTO users (user_id, name) VALUES ('{user}', 'somebody')")
tokens = {
    user: subprocess.run([fanout, "token", "--user", user], check=True, capture_output=True, text=True).stdout.strip()
    for user in [ada, bob]}

consumer = confluent_kafka.Consumer({
    "bootstrap.servers": os.environ["FANOUT_KAFKA"], "group.id": "fanout.push", "enable.auto.commit": False})
partitions = [
    confluent_kafka.TopicPartition(topic, number, confluent_kafka.OFFSET_BEGINNING)
    for topic in ["chat.push", "chat.push.dead"] for number in consumer.list_topics(topic, timeout=20).topics[topic].partitions]
# Assigned and not subscribed: the group's place is looked at, and left to its member.
consumer.assign(partitions)
pushed, told = {bob: [], cyd: []}, {bob: [], cyd: []}
places = {}


def wait(what, condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}; pushed {pushed}, told {told}"
        record = consumer.poll(0.2)
        if record is None or record.error():
            continue
        value = json.loads(record.value())
        if record.topic() == "chat.push":
            pushed[value["user"]].append(value["last"]["text"])
            places[value["user"]] = confluent_kafka.TopicPartition("chat.push", record.partition(), record.offset() + 1)
        else:
            told[value["user"]].append(value["last"]["text"])


def is_settled(user):
    place = places[user]
    return consumer.committed([confluent_kafka.TopicPartition(place.topic, place.partition)], timeout=20)[0].offset >= place.offset


async def session(user, device, cursor=None):
    socket = await connect(
        f"ws://127.0.0.1:{port}/v1/ws?device={device}", additional_headers={"Authorization": f"Bearer {tokens[user]}"},
        subprotocols=["fanout.v1"])
    await socket.send(json.dumps({"type": "hello"} | ({"cursor": cursor} if cursor else {})))
    return socket


async def until(socket, kind):
    texts = []
    while True:
        frame = json.loads(await asyncio.wait_for(socket.recv(), 30))
        if frame["type"] == "message":
            texts.append(frame["text"])
        if frame["type"] == kind:
            return frame, texts


async def main():
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chats", data=json.dumps({"kind": "group", "title": "t", "members": [bob, cyd]}).encode(),
        headers={"Authorization": f"Bearer {tokens[ada]}"})
    chat = json.loads(urllib.request.urlopen(request, timeout=20).read())["chat"]
    his = await session(bob, device)
    cursor = (await until(his, "caught_up"))[0]["cursor"]
    await his.close()
    speaker = await session(ada, str(uuid.uuid4()))
    await until(speaker, "caught_up")

    async def say(text):
        await speaker.send(json.dumps({"type": "send", "id": str(uuid.uuid4()), "chat": chat, "text": text}))
        await until(speaker, "sent")

    sql(f"UPDATE members SET muted_until = 'infinity' WHERE user_id = '{bob}' AND chat_id = '{chat}'")
    # What is said before Delivery knows that he has left goes to his session.
    await asyncio.to_thread(wait, "Bob is offline", lambda: presence(bob) == "offline")
    await say("muted")
    await asyncio.to_thread(wait, "both are in chat.push", lambda: pushed[bob] and pushed[cyd])
    await asyncio.to_thread(wait, "Cyd is told", lambda: told[cyd])
    await asyncio.to_thread(wait, "Bob's notice is settled", lambda: is_settled(bob))
    assert told[bob] == [], told

    sql(f"UPDATE members SET muted_until = NULL WHERE user_id = '{bob}' AND chat_id = '{chat}'")
    await say("heard")
    await asyncio.to_thread(wait, "Bob is told", lambda: told[bob])
    assert told[bob] == ["heard"] and pushed[bob] == ["muted", "heard"], (told, pushed)

    _, texts = await until(await session(bob, device, cursor), "caught_up")
    assert texts == ["muted", "heard"], texts
    print(f"chat.push: {pushed[bob]} for Bob, {pushed[cyd]} for Cyd; told: {told[bob]} and {told[cyd]}")


def presence(user):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/users/{user}/status", headers={"Authorization": f"Bearer {tokens[ada]}"})
    return json.loads(urllib.request.urlopen(request, timeout=20).read())["status"]


asyncio.run(main())
