/** Prometheus' text as the operations page reads it: `node --test web/tests/metrics.test.mjs`. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { complete, parseMetrics, quantileMs } from '../app/metrics.js';

const text = `# HELP fanout_join_messages_total Messages accepted and fanned out.
# TYPE fanout_join_messages_total counter
fanout_join_messages_total 120
fanout_join_recipients_total 4800
process_cpu_seconds_total 1.5
odd{why="a \\"quoted\\" one\\nwith a line, and {braces}",le="+Inf"} 3
fanout_join_log_seconds_bucket{le="0.001"} 50
fanout_join_log_seconds_bucket{le="0.002"} 90
fanout_join_log_seconds_bucket{le="0.004"} 100
fanout_join_log_seconds_bucket{le="+Inf"} 100
fanout_join_log_seconds_count 100
`;

test('the text is read with its labels, and comments are not', () => {
    const families = parseMetrics(text);
    assert.deepEqual(families.get('fanout_join_messages_total'), [{ labels: {}, value: 120 }]);
    assert.deepEqual(families.get('odd')[0].labels, { why: 'a "quoted" one\nwith a line, and {braces}', le: '+Inf' });
});

test('quantiles lie within their bucket', () => {
    const families = parseMetrics(text);
    assert.ok(Math.abs(quantileMs(families, 'fanout_join_log_seconds', 0.5) - 1) < 1e-9);
    assert.ok(Math.abs(quantileMs(families, 'fanout_join_log_seconds', 0.95) - 3) < 1e-9);
    assert.equal(quantileMs(families, 'unknown_seconds', 0.5), undefined);
});

test('an answer is completed with what the texts tell, and keeps what it knew', () => {
    const answer = complete({
        ts: 1, stages: { ingest: { in: 7, out: 9 } },
        metrics: { join: text, lag: [
            'fanout_lag_messages{group="x.fanout.join",topic="a",partition="0"} 3',
            'fanout_lag_messages{group="x.fanout.join",topic="b",partition="0"} 4',
            'fanout_lag_seconds{group="x.fanout.join",topic="a",partition="0"} 0.5',
            'fanout_lag_state{group="x.fanout.join",topic="a"} 1', 'fanout_lag_state{group="x.fanout.join",topic="b"} 0',
            'fanout_slot_active{slot="fanout"} 1', 'fanout_slot_retained_bytes{slot="fanout"} 1024', ''].join('\n') },
    });
    assert.deepEqual(answer.stages.ingest, { in: 7, out: 9 });
    assert.equal(answer.stages.join.in, 120);
    assert.equal(answer.stages.join.out, 4800);
    assert.equal(answer.topics['chat.messages'].records, 120);
    assert.equal(answer.hops.log_join.count, 100);
    assert.deepEqual(answer.lag, { join: { messages: 7, seconds: 0.5, state: 'BEHIND' } });
    assert.deepEqual(answer.cdc, { active: true, retained_bytes: 1024 });
});

test('without any text it stays as it is', () => {
    assert.deepEqual(complete({ ts: 1 }), { ts: 1, stages: {}, topics: {}, hops: {}, lag: undefined, cdc: undefined });
});
