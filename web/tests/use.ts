/** How the library is used in TypeScript: types.test.mjs has the compiler read it. Nothing runs it. */

import { FanoutAPI, FanoutClient, FanoutError, HistoryMessage, Message, deviceID, memoryStore } from '../fanout.js';

const token = async () => 'fresh';
const client = new FanoutClient({ url: 'wss://chat.example', token, device: deviceID(memoryStore()), WebSocket });
client.on('message', (message: Message) => {
    // @ts-expect-error a deletion is an event of its own; `deleted` is what history makes of it
    if (message.kind === 'deleted') return;
});

export async function amend(api: FanoutAPI, chat: string): Promise<string[]> {
    const { messages } = await api.history(chat, { limit: 20 });
    for await (const page of api.pages(chat)) messages.push(...page);
    const lines = messages.map((message: HistoryMessage) => {
        if (message.kind === 'deleted') return `deleted at ${message.changed_seq ?? message.seq}`;
        // @ts-expect-error edits are not listed
        if (message.kind === 'edit') return '';
        return message.changed_seq === undefined ? `${message.text}` : `${message.text} (edited)`;
    });
    try {
        const { seq } = await client.edit(chat, messages[0].seq, 'better').sent;
        return [...lines, `${seq}`];
    } catch (error) {
        return [(error as FanoutError).code];
    }
}
