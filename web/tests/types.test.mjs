/** What fanout.d.ts promises is what the library has: `node --test web/tests/types.test.mjs`. */

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { FanoutClient } from '../fanout.js';
import * as library from '../fanout.js';

const types = readFileSync(new URL('../fanout.d.ts', import.meta.url), 'utf8');
const manifest = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));

/** Methods and accessors of a class, inherited ones as well. */
function members({ prototype }) {
    const names = new Set();
    for (let place = prototype; place !== Object.prototype; place = Object.getPrototypeOf(place)) {
        for (const name of Object.getOwnPropertyNames(place)) names.add(name);
    }
    return [...names].sort();
}

function declared(name) {
    const body = new RegExp(`^export class ${name}\\b[^{]*\\{\\n(.*?)^\\}`, 'ms').exec(types)[1];
    return [...new Set([...body.matchAll(/^ {4}(?:get )?(\w+)(?:<[^>]*>+)?\(/gm)].map((match) => match[1]))].sort();
}

test('every name that is exported is declared, and none besides', () => {
    const names = [...types.matchAll(/^export (?:const|class|function) (\w+)/gm)].map((match) => match[1]);
    assert.deepEqual(names.sort(), Object.keys(library).sort());
});

test('every method that a class has is declared, and none besides', () => {
    for (const name of ['FanoutClient', 'FanoutAPI']) assert.deepEqual(declared(name), members(library[name]), name);
});

test('every event that the client tells is declared, and none besides', () => {
    const source = readFileSync(new URL('../fanout.js', import.meta.url), 'utf8');
    const told = [...source.matchAll(/\bemit\('(\w+)'/g)].map((match) => match[1]);
    const body = /^export interface Events \{\n(.*?)^\}/ms.exec(types)[1];
    assert.deepEqual([...body.matchAll(/^ {4}(\w+):/gm)].map((match) => match[1]).sort(), [...new Set(told)].sort());
});

test('TypeScript agrees with what is written in it', () => {
    const file = fileURLToPath(new URL('use.ts', import.meta.url));
    const { status, stdout, error } = spawnSync('tsc', [
        '--noEmit', '--strict', '--target', 'es2022', '--module', 'es2022', '--moduleResolution', 'node', file,
    ], { encoding: 'utf8' });
    assert.equal(status, 0, stdout || String(error));
});

test('whoever imports the package by its name gets the library and its types', async () => {
    const entry = manifest.exports['.'];
    assert.equal((await import(new URL(`../${entry.default}`, import.meta.url))).FanoutClient, FanoutClient);
    for (const file of manifest.files) assert.ok(readFileSync(new URL(`../${file}`, import.meta.url)).length > 0, file);
    assert.ok(manifest.files.includes(entry.types.slice(2)));
});
