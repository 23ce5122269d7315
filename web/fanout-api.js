// @ts-check
/** The HTTP half of the protocol: what is looked up rather than followed. */

import { FanoutError } from './fanout-base.js';

/**
 * @typedef {import('./fanout.js').HistoryMessage} HistoryMessage
 *
 * @typedef {object} Conversation
 * @property {string} chat
 * @property {'direct'|'group'} kind
 * @property {string|null} [title]
 * @property {number} meta_version
 * @property {'member'|'admin'} [role]
 * @property {{user: string, name: string}} [peer] the other one of a direct chat
 * @property {number} [members_count]
 * @property {number|null} [last_seq]
 * @property {number|null} [last_ts]
 * @property {string|null} [last_preview]
 * @property {number} [unread]
 * @property {number} [read_seq]
 * @property {{user: string, name: string, role: 'member'|'admin', read_seq?: number}[]} [members]
 */

export class FanoutAPI {
    /** @param {{url: string, token: string|(() => string|Promise<string>)}} options */
    constructor({ url, token }) {
        this.base = url.replace(/^ws/, 'http');
        this.token = token;
    }

    /**
     * My conversations, newest first.
     * @param {{limit?: number, page?: string}} [query]
     * @returns {Promise<{chats: Conversation[], next: string|null}>}
     */
    chats(query = {}) {
        return this.call('GET', '/v1/chats', { query });
    }

    /**
     * One conversation, with its members.
     * @param {string} chat @returns {Promise<Conversation>}
     */
    chat(chat) {
        return this.call('GET', `/v1/chats/${chat}`);
    }

    /**
     * A page of messages as they are now, rising by seq.
     * @param {string} chat @param {{before?: number, after?: number, limit?: number}} [query]
     * @returns {Promise<{messages: HistoryMessage[], more: boolean}>}
     */
    history(chat, query = {}) {
        return this.call('GET', `/v1/chats/${chat}/messages`, { query });
    }

    /**
     * All pages from the newest back, one at a time.
     * @param {string} chat @param {number} [limit]
     */
    async *pages(chat, limit = 50) {
        /** @type {number|undefined} */ let before;
        while (true) {
            const page = await this.history(chat, { before, limit });
            yield page.messages;
            if (!page.more || page.messages.length === 0) return;
            before = page.messages[0].seq;
        }
    }

    /**
     * The direct chat with a user, made if there is none.
     * @param {string} user
     * @returns {Promise<{chat: string, meta_version: number}>}
     */
    direct(user) {
        return this.call('POST', '/v1/chats', { body: { kind: 'direct', members: [user] } });
    }

    /** @param {string} title @param {string[]} members @returns {Promise<{chat: string, meta_version: number}>} */
    createGroup(title, members) {
        return this.call('POST', '/v1/chats', { body: { kind: 'group', title, members } });
    }

    /** @param {string} chat */
    deleteChat(chat) {
        return this.call('DELETE', `/v1/chats/${chat}`);
    }

    /**
     * Give the answer's `meta_version` to `FanoutClient.sawMetaVersion`.
     * @param {string} chat @param {string} user
     * @param {'member'|'admin'} [role] @returns {Promise<{meta_version: number}>}
     */
    addMember(chat, user, role) {
        return this.call('PUT', `/v1/chats/${chat}/members/${user}`, { body: role ? { role } : {} });
    }

    /** @param {string} chat @param {string} user @returns {Promise<{meta_version: number}>} */
    removeMember(chat, user) {
        return this.call('DELETE', `/v1/chats/${chat}/members/${user}`);
    }

    /** @param {string} user @returns {Promise<{user: string, name: string}>} */
    user(user) {
        return this.call('GET', `/v1/users/${user}`);
    }

    /** @param {string} name @returns {Promise<{user: string, name: string}>} */
    createUser(name) {
        return this.call('POST', '/v1/users', { body: { name } });
    }

    /** @param {string} user @returns {Promise<import('./fanout.js').Presence>} */
    status(user) {
        return this.call('GET', `/v1/users/${user}/status`);
    }

    /**
     * The least loaded chat server: usable as a FanoutClient's `url`.
     * @returns {Promise<string>}
     */
    async endpoint() {
        return (await this.call('GET', '/v1/endpoint')).url;
    }

    /**
     * Presigned URLs to put a file to and to get it from; put it with `type` as its Content-Type.
     * @param {{name: string, type: string, bytes: number}} file
     * @returns {Promise<{put: string, get: string, type: string}>}
     */
    media(file) {
        return this.call('POST', '/v1/media', { body: file });
    }

    /** What the operations page shows (docs/ops-api.md). */
    ops() {
        return this.call('GET', '/v1/ops');
    }

    /** @param {string} method @param {string} path
     * @param {{query?: Record<string, string|number|undefined>, body?: object}} content @returns {Promise<any>} */
    async call(method, path, { query, body } = {}) {
        const url = new URL(path, this.base);
        for (const [name, value] of Object.entries(query ?? {})) {
            if (value !== undefined) url.searchParams.set(name, String(value));
        }
        const token = typeof this.token === 'function' ? await this.token() : this.token;
        /** @type {Record<string, string>} */ const headers = { authorization: `Bearer ${token}` };
        if (body) headers['content-type'] = 'application/json';
        let answer;
        try {
            answer = await fetch(url, { method, headers, body: body && JSON.stringify(body) });
        } catch (cause) {
            throw new FanoutError('unreachable', 'the server cannot be reached', {});
        }
        const text = await answer.text();
        /** @type {any} */ let value = {};
        try {
            value = text === '' ? {} : JSON.parse(text);
        } catch {
            if (answer.ok) throw new FanoutError('bad_answer', `not JSON: ${path}`, { status: answer.status });
        }
        if (answer.ok) return value;
        const { code = 'http_error', message = `${answer.status} ${answer.statusText}` } = value.error ?? {};
        throw new FanoutError(code, message, { status: answer.status });
    }
}
