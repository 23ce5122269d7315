// @ts-check
/** What the two halves of the client library share. */

/** What the server or the library refuses, with the protocol's code. */
export class FanoutError extends Error {
    /** @param {string} code @param {string} message @param {{id?: string, status?: number}} detail */
    constructor(code, message, { id, status } = {}) {
        super(message);
        this.name = 'FanoutError';
        this.code = code;
        /** The id of the frame that is refused. */
        this.id = id;
        /** The HTTP status, if it came over HTTP. */
        this.status = status;
    }
}

/** Named events: `on` answers a function that ends the listening. */
export class Emitter {
    /** @type {Map<string, Set<(event: any) => void>>} */ #listeners = new Map();

    /** @param {string} name @param {(event: any) => void} listener */
    on(name, listener) {
        const listeners = this.#listeners.get(name) ?? new Set();
        this.#listeners.set(name, listeners.add(listener));
        return () => { listeners.delete(listener); };
    }

    /**
     * The next event of that name.
     * @param {string} name @returns {Promise<any>}
     */
    once(name) {
        return new Promise((resolve) => {
            const end = this.on(name, (event) => {
                end();
                resolve(event);
            });
        });
    }

    /** @param {string} name @param {any} event */
    emit(name, event) {
        for (const listener of this.#listeners.get(name) ?? []) {
            try {
                listener(event);
            } catch (error) {
                // A view's mistake must not stop the stream.
                console.error(error);
            }
        }
    }
}

/**
 * A store that forgets with the page.
 * @returns {Pick<Storage, 'getItem'|'setItem'>}
 */
export function memoryStore() {
    /** @type {Map<string, string>} */ const values = new Map();
    return {
        getItem: (key) => values.get(key) ?? null,
        setItem: (key, value) => void values.set(key, value),
    };
}

/** A random UUID, also where `crypto.randomUUID` is kept back because the page came over plain http. */
export function newID() {
    if (crypto.randomUUID) return crypto.randomUUID();
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('');
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

/** This device's id, made at the first call. With `sessionStorage` each tab is a device, with `localStorage` each browser.
 * @param {Pick<Storage, 'getItem'|'setItem'>} store @param {string} [key] */
export function deviceID(store, key = 'fanout:device') {
    const known = store.getItem(key);
    if (known) return known;
    const id = newID();
    store.setItem(key, id);
    return id;
}
