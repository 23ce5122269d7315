/** Prometheus' text into what the operations page shows: for stages that only serve `/metrics`. */

/** name → [{labels, value}] @param {string} text */
export function parseMetrics(text) {
    const families = new Map();
    for (const line of text.split('\n')) {
        const match = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line);
        if (!match) continue;
        const labels = {};
        for (const [, name, value] of (match[2] ?? '').matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) {
            labels[name] = value.replace(/\\(.)/g, (_, letter) => (letter === 'n' ? '\n' : letter));
        }
        const value = match[3] === '+Inf' ? Infinity : Number(match[3]);
        families.set(match[1], [...families.get(match[1]) ?? [], { labels, value }]);
    }
    return families;
}

const sum = (families, name) => families.get(name)?.reduce((total, { value }) => total + value, 0);

/** The latency below which the share `q` of a histogram lies, in milliseconds. */
export function quantileMs(families, name, q) {
    const buckets = new Map();
    for (const { labels, value } of families.get(`${name}_bucket`) ?? []) {
        const bound = labels.le === '+Inf' ? Infinity : Number(labels.le);
        buckets.set(bound, (buckets.get(bound) ?? 0) + value);
    }
    const bounds = [...buckets.keys()].sort((a, b) => a - b);
    const total = buckets.get(Infinity);
    if (!total) return undefined;
    let [below, last] = [0, 0];
    for (const bound of bounds) {
        const count = buckets.get(bound);
        if (count >= q * total) {
            if (bound === Infinity) return last * 1000;
            return 1000 * (last + (bound - last) * (q * total - below) / (count - below || 1));
        }
        [below, last] = [count, bound];
    }
    return undefined;
}

/** What comes in and goes out of each stage, by its metrics. */
const FLOW = {
    ingest: ['fanout_ingest_messages_total', 'fanout_ingest_deliveries_total'],
    cdc: ['fanout_cdc_changes_total', 'fanout_cdc_records_total'],
    join: ['fanout_join_messages_total', 'fanout_join_recipients_total'],
    delivery: ['fanout_delivery_records_total', 'fanout_delivery_deliveries_total'],
    history: ['fanout_history_stored_total', 'fanout_history_stored_total'],
    push: ['fanout_push_records_total', 'fanout_push_attempts_total'],
};

/** What is written to a topic, by the stage that writes or reads it. */
const TOPICS = {
    'chat.incoming': ['ingest', 'fanout_ingest_messages_total'], 'chat.messages': ['join', 'fanout_join_messages_total'],
    'chat.deliveries': ['delivery', 'fanout_delivery_records_total'], 'chat.members': ['join', 'fanout_join_changes_total'],
    'chat.push': ['delivery', 'fanout_delivery_pushes_total'],
};

/** Each hop's histogram. */
const HOPS = {
    socket_log: ['ingest', 'fanout_ingest_log_seconds'], log_join: ['join', 'fanout_join_log_seconds'],
    join_delivery: ['delivery', 'fanout_delivery_log_seconds'], delivery_socket: ['ingest', 'fanout_ingest_delivery_seconds'],
    end_to_end: ['ingest', 'fanout_ingest_end_to_end_seconds'],
};

/** Completes an answer of `GET /v1/ops` with what the texts in its `metrics` tell. */
export function complete(answer) {
    const all = Object.fromEntries(Object.entries(answer.metrics ?? {}).map(([name, text]) => [name, parseMetrics(text)]));
    const stages = { ...answer.stages };
    for (const [stage, families] of Object.entries(all)) {
        if (!FLOW[stage]) continue;
        const [taken, given] = FLOW[stage];
        stages[stage] = {
            state: 'ok', processes: 1, in: sum(families, taken), out: sum(families, given),
            memory_bytes: sum(families, 'process_resident_memory_bytes'), cpu_seconds: sum(families, 'process_cpu_seconds_total'),
            ...answer.stages?.[stage],
        };
    }
    const topics = { ...answer.topics };
    for (const [topic, [stage, name]] of Object.entries(TOPICS)) {
        const records = all[stage] && sum(all[stage], name);
        if (records !== undefined) topics[topic] ??= { records };
    }
    const hops = { ...answer.hops };
    for (const [hop, [stage, name]] of Object.entries(HOPS)) {
        const count = all[stage] && sum(all[stage], `${name}_count`);
        if (count) hops[hop] ??= { count, p50_ms: quantileMs(all[stage], name, 0.5), p99_ms: quantileMs(all[stage], name, 0.99) };
    }
    return { ...answer, stages, topics, hops, lag: answer.lag ?? lag(all.lag), cdc: answer.cdc ?? slot(all.lag) };
}

const STATES = ['OK', 'BEHIND', 'EMPTY', 'STALLED', 'DANGER'];

/** The figures of `fanout lag --prometheus`, by stage: `…fanout.join` → join. */
function lag(families) {
    if (!families?.has('fanout_lag_messages')) return undefined;
    const stages = {};
    const row = ({ group }) => stages[group.split('.').at(-1)] ??= { messages: 0, seconds: 0, state: 'OK' };
    for (const { labels, value } of families.get('fanout_lag_messages')) row(labels).messages += value;
    for (const { labels, value } of families.get('fanout_lag_seconds') ?? []) {
        row(labels).seconds = Math.max(row(labels).seconds, value);
    }
    for (const { labels, value } of families.get('fanout_lag_state') ?? []) {
        // A stage that reads several topics is as bad as the worst of them.
        if (value > STATES.indexOf(row(labels).state)) row(labels).state = STATES[value];
    }
    return stages;
}

function slot(families) {
    const active = families && sum(families, 'fanout_slot_active');
    return active === undefined ? undefined : { active: active > 0, retained_bytes: sum(families, 'fanout_slot_retained_bytes') };
}
