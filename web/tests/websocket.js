/** Just enough WebSocket for the tests on any Node: a server that speaks whole text frames, and a client like the browser's. */

import { createHash, randomBytes } from 'node:crypto';
import http from 'node:http';

const accept = (/** @type {string} */ key) =>
    createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');

function encode(opcode, payload, masked) {
    const length = payload.length;
    const header = [0x80 | opcode];
    const bit = masked ? 0x80 : 0;
    if (length < 126) header.push(bit | length);
    else header.push(bit | 126, length >> 8, length & 255);
    if (!masked) return Buffer.concat([Buffer.from(header), payload]);
    const mask = randomBytes(4);
    return Buffer.concat([Buffer.from(header), mask, payload.map((byte, index) => byte ^ mask[index & 3])]);
}

const closing = (code, reason) => Buffer.concat([Buffer.from([code >> 8, code & 255]), Buffer.from(reason)]);

/** Cuts a stream of bytes into frames. */
function decoder(onframe) {
    let rest = Buffer.alloc(0);
    return (chunk) => {
        rest = Buffer.concat([rest, chunk]);
        while (rest.length >= 2) {
            let at = 2;
            let length = rest[1] & 127;
            if (length === 126) {
                if (rest.length < 4) return;
                length = rest.readUInt16BE(2);
                at = 4;
            }
            const mask = rest[1] & 0x80 ? rest.subarray(at, at += 4) : undefined;
            if (rest.length < at + length) return;
            let payload = rest.subarray(at, at + length);
            if (mask) payload = payload.map((byte, index) => byte ^ mask[index & 3]);
            const opcode = rest[0] & 15;
            rest = rest.subarray(at + length);
            onframe(opcode, Buffer.from(payload));
        }
    };
}

/** One connected device, as the server sees it. */
class Peer {
    constructor(socket, url, protocols) {
        Object.assign(this, { socket, url, protocols, frames: [], waiting: [] });
        socket.on('error', () => {});
        socket.on('data', decoder((opcode, payload) => {
            if (opcode === 8) return socket.end();
            this.frames.push(JSON.parse(payload.toString()));
            for (const look of this.waiting) look();
        }));
    }

    send(frame) { this.socket.write(encode(1, Buffer.from(JSON.stringify(frame)), false)); }
    close(code, reason = '') { this.socket.end(encode(8, closing(code, reason), false)); }
    /** As when a cable is pulled. */
    cut() { this.socket.destroy(); }

    /** The first frame that has not been taken and fits. */
    take(type, seconds = 5) {
        return new Promise((resolve, reject) => {
            const late = setTimeout(() => reject(new Error(
                `no ${type} frame; came: ${JSON.stringify(this.frames)}`)), seconds * 1000);
            const look = () => {
                const index = this.frames.findIndex((frame) => frame.type === type);
                if (index < 0) return;
                clearTimeout(late);
                this.waiting = this.waiting.filter((other) => other !== look);
                resolve(this.frames.splice(index, 1)[0]);
            };
            this.waiting.push(look);
            look();
        });
    }
}

/** A chat server whose every answer the test gives by hand. */
export class Server {
    static async start() {
        const server = new Server();
        await new Promise((done) => server.http.listen(0, '127.0.0.1', () => done(undefined)));
        return server;
    }

    constructor() {
        this.peers = [];
        this.taken = 0;
        this.waiting = [];
        /** What HTTP answers: `'GET /v1/chats': [200, {...}]`. */
        this.answers = {};
        this.requests = [];
        /** A status to refuse handshakes with. */
        this.refuse = 0;
        this.http = http.createServer(async (request, response) => {
            let body = '';
            for await (const chunk of request) body += chunk;
            this.requests.push({ method: request.method, url: request.url, headers: request.headers, body });
            const [status, value] = this.answers[`${request.method} ${request.url}`] ?? [404, {}];
            response.writeHead(status, { 'content-type': 'application/json' });
            response.end(value === undefined ? '' : JSON.stringify(value));
        });
        this.http.on('upgrade', (request, socket) => {
            if (this.refuse) return socket.end(`HTTP/1.1 ${this.refuse} No\r\nContent-Length: 0\r\n\r\n`);
            socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
                + `Sec-WebSocket-Protocol: fanout.v1\r\n`
                + `Sec-WebSocket-Accept: ${accept(request.headers['sec-websocket-key'])}\r\n\r\n`);
            this.peers.push(new Peer(socket, new URL(request.url, 'http://host'),
                request.headers['sec-websocket-protocol'].split(/,\s*/)));
            for (const look of this.waiting.splice(0)) look();
        });
    }

    get url() { return `ws://127.0.0.1:${this.http.address().port}`; }

    /** The next connection. */
    async peer() {
        while (this.peers.length <= this.taken) await new Promise((look) => this.waiting.push(() => look(undefined)));
        return this.peers[this.taken++];
    }

    stop() {
        for (const peer of this.peers) peer.cut();
        this.http.closeAllConnections();
        this.http.close();
    }
}

/** The part of the browser's WebSocket that the library uses. As with Node's `ws`, an error that nobody listens for is thrown
 * where nobody catches it. */
export class ClientSocket {
    readyState = 0;
    onopen = null;
    onmessage = null;
    onclose = null;
    onerror = null;
    #socket;

    constructor(url, protocols) {
        const key = randomBytes(16).toString('base64');
        const request = http.request(url.replace(/^ws/, 'http'), { headers: {
            connection: 'Upgrade', upgrade: 'websocket', 'sec-websocket-version': '13', 'sec-websocket-key': key,
            'sec-websocket-protocol': protocols.join(', '),
        } });
        request.on('response', (response) => { response.resume(); this.#ended(1006, ''); });
        request.on('error', (error) => {
            if (!this.onerror) throw error;
            this.onerror({ error });
            this.#ended(1006, '');
        });
        request.on('upgrade', (_, socket) => {
            this.#socket = socket;
            let close = [1006, ''];
            const decode = decoder((opcode, payload) => {
                if (opcode === 1) this.onmessage?.({ data: payload.toString() });
                if (opcode === 8) {
                    close = [payload.readUInt16BE(0), payload.subarray(2).toString()];
                    socket.end(encode(8, payload, true));
                }
            });
            socket.on('data', decode);
            socket.on('error', () => {});
            socket.on('close', () => this.#ended(close[0], close[1]));
            this.readyState = 1;
            this.onopen?.({});
        });
        request.end();
    }

    #ended(code, reason) {
        if (this.readyState === 3) return;
        this.readyState = 3;
        this.onclose?.({ code, reason });
    }

    send(text) { this.#socket?.write(encode(1, Buffer.from(text), true)); }

    close(code = 1000) {
        this.readyState = 2;
        this.#socket?.end(encode(8, closing(code, ''), true));
    }
}
