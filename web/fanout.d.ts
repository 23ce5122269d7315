/** The client library's types; web/fanout.js says how it is used, docs/protocol.md what it speaks. */

export interface Message {
    chat: string;
    /** Its place in the chat. */
    seq: number;
    id: string;
    from: string;
    ts: number;
    kind: 'text' | 'edit' | 'delete';
    text?: string;
    attachments?: Attachment[];
    /** The seq that it answers. */
    reply_to?: number;
    /** The seq that an edit or delete is about. */
    target?: number;
}

/** A message as it is now, changes applied: what `history()` answers. */
export interface HistoryMessage extends Omit<Message, 'kind' | 'target'> {
    type: 'message';
    /** `deleted`: it was taken back, and has no text any more. */
    kind: 'text' | 'deleted';
    /** The seq of its last edit, or of its deletion. */
    changed_seq?: number;
}

/** What a message carries beside its text; the server passes it on as it is. */
export interface Attachment {
    url?: string;
    name?: string;
    type?: string;
    bytes?: number;
    [more: string]: unknown;
}

export interface Sent { id: string; chat: string; seq: number; ts: number }
export interface Receipt { chat: string; from: string; kind: 'delivered' | 'read'; seq: number }
export interface Typing { chat: string; from: string }
/** Many were added, removed or given another role at once: ask who is in the chat. */
export interface MembersChange { chat: string; added: number; removed: number; roles: number; meta_version: number }
export interface MemberChange { chat: string; user: string; change: 'added' | 'removed' | 'role'; meta_version: number }
export interface Presence { user: string; status: 'online' | 'offline'; last_seen: number | null }
/** One frame as it went over the connection, or a remark between frames. */
export interface Frame { direction: 'in' | 'out' | 'note'; text: string; at: number }
export interface Hello { user: string; instance: string; session: string }

export interface State {
    /**
     * connecting: until `hello` is answered; syncing: missed events are coming; live: all are here;
     * waiting: for the next attempt; closed: for good, by `close()` or by a final close code.
     */
    name: 'idle' | 'connecting' | 'syncing' | 'live' | 'waiting' | 'closed';
    /** waiting: when, in milliseconds since the epoch. */
    retryAt?: number;
    /** waiting and closed: why. */
    code?: number;
    reason?: string;
}

export interface CaughtUp {
    cursor: string;
    /** The place was lost: load conversations anew. */
    reset: boolean;
    /** How many events had been missed. */
    events: number;
    /** How long the catching up took. */
    ms: number;
    /** Whether there was a cursor to resume from. */
    resumed: boolean;
}

/** What a client tells its listeners, by name. */
export interface Events {
    state: State;
    hello: Hello;
    caught_up: CaughtUp;
    message: Message;
    sent: Sent;
    receipt: Receipt;
    typing: Typing;
    member: MemberChange;
    members_changed: MembersChange;
    presence: Presence;
    /** The server asks to send more slowly: nothing is refused, it goes on by itself at `retryAt`. */
    slowed: { code: string; retryAt: number };
    error: FanoutError;
    frame: Frame;
    /** A frame of a type that this version does not know. */
    unknown: { type: string; [more: string]: unknown };
}

/** Where cursor and outbox survive: `localStorage`, `sessionStorage` or anything alike. */
export type Store = Pick<Storage, 'getItem' | 'setItem'>;
/** A value, or a function that is asked for it before each attempt. */
export type Asked<Value> = Value | (() => Value | Promise<Value>);

export interface Backoff { minMs?: number; maxMs?: number }

export interface Options {
    /** Of a chat server, `http:` or `ws:`. */
    url: Asked<string>;
    /** A function is also asked after a token of its was refused or has run out; one that is not a function is never tried again. */
    token: Asked<string>;
    /** This device's id, the same for each of its sessions and for no other's. */
    device: string;
    /** Memory if not given. */
    store?: Store;
    /** The prefix of the keys in the store. */
    storeKey?: string;
    /** A device without a cursor of its own asks for the one the server stored. */
    resumeFromServer?: boolean;
    /** Where there is no global one (Node before 22: the package `ws` has one). */
    WebSocket?: new (url: string, protocols: string[]) => WebSocket;
    backoff?: Backoff;
    ackEveryMs?: number;
    readEveryMs?: number;
    /** How long to gather `delivered` marks; -1 sends none. */
    deliveredEveryMs?: number;
    typingEveryMs?: number;
    random?: () => number;
}

export interface OutFrame {
    type: 'send' | 'edit' | 'delete';
    id: string;
    chat: string;
    text?: string;
    seq?: number;
    reply_to?: number;
    attachments?: Attachment[];
}

/**
 * A message on its way; `sent` is rejected with a FanoutError when the server refuses it. A message is `sent` when the log has
 * it, an edit or a deletion when it has also been judged and stands.
 */
export interface Post { id: string; sent: Promise<Sent> }

/** A device may have so many unacknowledged messages; `send` beyond that is refused. */
export const OUTBOX_MAX: number;
export const FRAME_BYTES_MAX: number;

/** What the server or the library refuses, with the protocol's code. */
export class FanoutError extends Error {
    constructor(code: string, message: string, detail?: { id?: string; status?: number });
    readonly code: string;
    /** The id of the frame that is refused. */
    readonly id?: string;
    /** The HTTP status, if it came over HTTP. */
    readonly status?: number;
}

export class FanoutClient {
    constructor(options: Options);
    readonly options: Options;
    readonly device: string;
    readonly store: Store;
    readonly key: string;
    /** Known from the first `hello` on. */
    user: string | undefined;
    instance: string | undefined;
    get state(): State;
    get cursor(): string | undefined;
    /** Unacknowledged messages, oldest first. */
    get outbox(): OutFrame[];

    /** Answers a function that ends the listening. */
    on<Name extends keyof Events>(name: Name, listener: (event: Events[Name]) => void): () => void;
    once<Name extends keyof Events>(name: Name): Promise<Events[Name]>;
    emit<Name extends keyof Events>(name: Name, event: Events[Name]): void;

    /** Connects, and stays connected until `close()` or a final close code. Throws `no_websocket` where there is none. */
    connect(): void;
    /** Disconnects until `connect()`, which resumes. */
    close(): void;
    /** Closes for good and lets go of the page. */
    destroy(): void;
    retryNow(): void;

    send(chat: string, text: string, extra?: { attachments?: Attachment[]; reply_to?: number; id?: string }): Post;
    edit(chat: string, seq: number, text: string): Post;
    delete(chat: string, seq: number): Post;
    /** Everything up to `seq` has been read. */
    read(chat: string, seq: number): void;
    /** Call it on every key. */
    typing(chat: string): void;
    /** Asks for `presence` of a user, now and on each change, until `unwatch`. */
    watch(user: string): void;
    unwatch(user: string): void;
    /** What an HTTP answer told of a chat's membership: what is sent from now on is joined against it or a later one. */
    sawMetaVersion(chat: string, version: number): void;
}

export interface Member { user: string; name: string; role: 'member' | 'admin'; read_seq?: number; delivered_seq?: number }

export interface Conversation {
    chat: string;
    kind: 'direct' | 'group';
    title?: string | null;
    meta_version: number;
    role?: 'member' | 'admin';
    /** The other one of a direct chat. */
    peer?: { user: string; name: string };
    members_count?: number;
    last_seq?: number | null;
    last_ts?: number | null;
    last_preview?: string | null;
    unread?: number;
    read_seq?: number;
    created_at?: number;
    members?: Member[];
}

export interface User { user: string; name: string }

export class FanoutAPI {
    constructor(options: { url: string; token: Asked<string> });
    readonly base: string;
    readonly token: Asked<string>;
    /** My conversations, newest first. */
    chats(query?: { limit?: number; page?: string }): Promise<{ chats: Conversation[]; next: string | null }>;
    chat(chat: string): Promise<Conversation>;
    /** A page of messages as they are now, rising by seq. */
    history(chat: string, query?: { before?: number; after?: number; limit?: number }): Promise<{ messages: HistoryMessage[]; more: boolean }>;
    /** All pages from the newest back. */
    pages(chat: string, limit?: number): AsyncGenerator<HistoryMessage[], void>;
    direct(user: string): Promise<{ chat: string; meta_version: number }>;
    createGroup(title: string, members: string[]): Promise<{ chat: string; meta_version: number }>;
    deleteChat(chat: string): Promise<unknown>;
    /** Give the answer's `meta_version` to `FanoutClient.sawMetaVersion`. */
    addMember(chat: string, user: string, role?: 'member' | 'admin'): Promise<{ meta_version: number }>;
    removeMember(chat: string, user: string): Promise<{ meta_version: number }>;
    user(user: string): Promise<User>;
    createUser(name: string): Promise<User>;
    status(user: string): Promise<Presence>;
    /** The least loaded chat server: usable as a FanoutClient's `url`. */
    endpoint(): Promise<string>;
    /** Presigned URLs to put a file to and to get it from; put it with `type` as its Content-Type. */
    media(file: { name: string; type: string; bytes: number }): Promise<{ put: string; get: string; type: string }>;
    /** What the operations page shows (docs/ops-api.md). */
    ops(): Promise<any>;
    call(method: string, path: string, content?: { query?: Record<string, string | number | undefined>; body?: object }): Promise<any>;
}

/** What to do after a close: nothing more, or try again after a delay. */
export function afterClose(
    code: number, reason: string, attempt: number, backoff?: Backoff, random?: () => number,
): { final: true } | { final: false; delayMs: number };

/** A store that forgets with the page. */
export function memoryStore(): Store;
export function newID(): string;
/** This device's id, made at the first call. */
export function deviceID(store: Store, key?: string): string;
