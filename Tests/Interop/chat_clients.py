"""Clients that nobody here wrote, against a chat server: chat_clients.py PORT USER TOKEN.

The server's test plays Delivery: to every session it pushes one event of over two thousand bytes. Prints the name of each
thing that holds; the first that does not ends with a traceback.
"""

import asyncio
import json
import sys
import uuid

import aiohttp
import websockets
from websockets.asyncio.client import connect

port, user, token = int(sys.argv[1]), sys.argv[2], sys.argv[3]
bearer = {"Authorization": f"Bearer {token}"}


def url():
    return f"ws://127.0.0.1:{port}/v1/ws?device={uuid.uuid4()}"


def send_frame(text):
    return json.dumps({"type": "send", "id": str(uuid.uuid4()), "chat": str(uuid.uuid4()), "text": text})


async def until(receive, kind):
    while True:
        frame = json.loads(await asyncio.wait_for(receive(), 10))
        if frame["type"] == kind:
            return frame


async def with_websockets():
    async with connect(url(), additional_headers=bearer, subprotocols=["fanout.v1"]) as ws:
        assert ws.subprotocol == "fanout.v1", ws.subprotocol
        assert [e.name for e in ws.protocol.extensions] == ["permessage-deflate"], ws.protocol.extensions
        print("websockets: subprotocol and deflate agreed on")
        await ws.send('{"type":"hello"}')
        assert (await until(ws.recv, "hello"))["user"] == user
        event = await until(ws.recv, "message")
        assert event["text"] == "x" * 2000
        print("websockets: hello, and a compressed event")
        await ws.send(send_frame("hello " * 500))
        assert (await until(ws.recv, "sent"))["seq"] >= 0
        await ws.send([send_frame("in pieces")[i : i + 7] for i in range(0, 200, 7)])
        await until(ws.recv, "sent")
        print("websockets: a compressed and a fragmented message")
        for _ in range(3):
            await asyncio.wait_for(await ws.ping(), 10)
        await ws.close()
        assert ws.close_code == 1000, ws.close_code
        print("websockets: pings and the close handshake")

    async with connect(url(), additional_headers=bearer, compression=None) as ws:
        await ws.send('{"type":"hello"}')
        assert len((await until(ws.recv, "message"))["text"]) == 2000
        await ws.send(send_frame("ä" * 10_000))
        await until(ws.recv, "sent")
        await ws.send(send_frame("x" * 10_001))
        assert (await until(ws.recv, "error"))["code"] == "too_large"
        print("websockets: without compression, and a text's limit")

    for payload, compression, code in [
        ("x" * 70_000, None, 1009),
        ("x" * 70_000, "deflate", 1009),
        (b"binary", None, 4002),
    ]:
        async with connect(url(), additional_headers=bearer, compression=compression) as ws:
            await ws.send('{"type":"hello"}')
            await until(ws.recv, "caught_up")
            try:
                await ws.send(payload)
                while True:
                    await asyncio.wait_for(ws.recv(), 10)
            except websockets.ConnectionClosed:
                pass
            assert ws.close_code == code, (ws.close_code, code)
    print("websockets: what is too large or not text is closed with its code")

    try:
        async with connect(url()):
            raise AssertionError("let in without a token")
    except websockets.InvalidStatus as refusal:
        assert refusal.response.status_code == 401
    print("websockets: no token, no session")


async def with_aiohttp():
    async with aiohttp.ClientSession() as http:
        async with http.ws_connect(url(), protocols=("fanout.v1", f"bearer.{token}"), compress=15) as ws:
            assert ws.protocol == "fanout.v1", ws.protocol
            await ws.send_str('{"type":"hello"}')
            assert (await until(ws.receive_str, "message"))["text"] == "x" * 2000
            await ws.send_str(send_frame("from aiohttp " * 100))
            await until(ws.receive_str, "sent")
            await ws.ping(b"are you there")
            await ws.send_str('{"type":"ping","n":7}')
            assert (await until(ws.receive_str, "pong"))["n"] == 7
            await ws.close()
            assert ws.close_code == 1000, ws.close_code
        print("aiohttp: the token as a subprotocol, a session, the close handshake")
        async with http.ws_connect(url(), protocols=("fanout.v1", "bearer.wrong")) as ws:
            await ws.receive()
            assert ws.close_code == 4001, ws.close_code
        print("aiohttp: a wrong token is told by a close code")
        base = f"http://127.0.0.1:{port}"
        for _ in range(5):
            async with http.get(base + "/v1/endpoint", headers=bearer) as answer:
                assert answer.status == 200 and "url" in await answer.json()
        async with http.get(base + "/v1/endpoint") as answer:
            assert answer.status == 401 and (await answer.json())["error"]["code"] == "unauthorised"

        async def pieces():
            for piece in [b'{"na', b'me":"', b'"}']:
                yield piece

        async with http.post(base + "/v1/users", data=pieces(), headers=bearer) as answer:
            assert answer.status == 403
        async with http.post(base + "/v1/users", json={"name": "x"}, headers=bearer, expect100=True) as answer:
            assert answer.status == 403
        print("aiohttp: HTTP with keep-alive, chunks and 100-continue")


asyncio.run(with_websockets())
asyncio.run(with_aiohttp())
print("everything holds")
