// Our MessagePack against npm's msgpackr, which LiveStore speaks over Durable Object RPC: what the
// one writes the other reads, and back.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { after, before, test } from "node:test";
import { join } from "node:path";
import { Packr } from "msgpackr";
import { root } from "../e2e/harness.mjs";

let ours, lines;
before(() => {
  ours = spawn(join(root, "target/debug/examples/msgpack"), { stdio: ["pipe", "pipe", "inherit"] });
  lines = linesOf(ours.stdout.setEncoding("utf8"));
});
after(async () => {
  ours.stdin.end();
  if (ours.exitCode === null) await once(ours, "exit");
});

/** node:readline takes U+2028 for the end of a line as well. */
async function* linesOf(stream) {
  let rest = "";
  for await (const part of stream) {
    const [first, ...more] = part.split("\n");
    rest += first;
    for (const next of more) {
      yield rest;
      rest = next;
    }
  }
}

async function ask(line) {
  ours.stdin.write(`${line}\n`);
  const { value } = await lines.next();
  return value;
}
const decode = async (bytes) => JSON.parse(await ask(`d ${Buffer.from(bytes).toString("hex")}`));
const encode = async (json) => Buffer.from(await ask(`e ${json}`), "hex");
// As LiveStore's RPC makes it; one for each buffer, as both sides begin anew.
const packr = () => new Packr({ useRecords: true });

/** Numbers from a seed: https://github.com/bryc/code/blob/master/jshash/PRNGs.md, mulberry32. */
function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** A value that JSON has; `undefined` where `holes` are wanted. */
function value(next, depth, holes) {
  const below = (count) => Math.floor(next() * count);
  const text = () => {
    const length = [0, 3, 31, 32, 255, 256, 70_000][below(depth > 3 ? 7 : 6)];
    const letters = ["a", "é", "\u2028", "🎉", '"', "\\", "\n", "\0"];
    return Array.from({ length: Math.min(length, 300) }, () => letters[below(letters.length)]).join("").padEnd(length, "x");
  };
  switch (below(depth > 0 ? 8 : 6)) {
    case 0:
      return [null, true, false][below(3)];
    case 1:
      return [0, 63, 64, 127, 128, 255, 256, 65_535, 65_536, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1][below(13)];
    case 2:
      return [-1, -32, -33, -128, -129, -32_768, -32_769, -(2 ** 31), -(2 ** 31) - 1, -(2 ** 53) + 1][below(10)];
    case 3:
      return [0.5, -1.25, 1e21, 5e-324, 1.7976931348623157e308, next() * 1e6][below(6)];
    case 4:
      return text();
    case 5:
      return holes && below(4) === 0 ? undefined : below(1_000_000);
    case 6:
      return Array.from({ length: [0, 1, 15, 16, 40][below(5)] }, () => value(next, depth - 2, false));
    default: {
      const keys = [["id", "text"], ["text", "id"], [], ["_tag"], ["a b", "ä", "constructor"], ["k" + below(200)]][below(6)];
      return Object.fromEntries(keys.map((key) => [key, value(next, depth - 1, holes)]));
    }
  }
}

const plain = (messages) => JSON.parse(JSON.stringify(messages));

test("what msgpackr writes is read, and what is written msgpackr reads", async () => {
  for (let seed = 1; seed <= 400; seed += 1) {
    const next = random(seed);
    const messages = Array.from({ length: 1 + Math.floor(next() * 3) }, () => ({ _tag: "Chunk", values: [value(next, 5, true)] }));
    assert.deepEqual(await decode(packr().pack(messages)), plain(messages), `seed ${seed}`);
    const json = JSON.stringify(plain(messages));
    const written = await encode(json);
    assert.deepEqual(plain(packr().unpack(written)), plain(messages), `seed ${seed}`);
    // And the order of keys, which is part of an event's text.
    assert.equal(JSON.stringify(packr().unpack(written)), json, `seed ${seed}`);
  }
});

test("more shapes than there are ids, within each other and one after the other", async () => {
  const many = Array.from({ length: 300 }, (_, n) => ({ [`k${n % 150}`]: { [`l${n % 97}`]: n, again: { [`k${n % 150}`]: n } } }));
  assert.deepEqual(await decode(packr().pack(many)), many);
  assert.deepEqual(packr().unpack(await encode(JSON.stringify(many))), many);
});

test("several messages in a buffer, one after the other, and one that is in no array", async () => {
  const [a, b] = [{ _tag: "Ping" }, { _tag: "Eof", n: [1, { _tag: "Ping" }] }];
  const joined = Buffer.concat([packr().pack([a]), packr().pack([b, a]), packr().pack(b)]);
  assert.deepEqual(await decode(joined), [a, b, a, b]);
  assert.deepEqual(await decode(new Packr({ useRecords: false }).pack([b])), [b]);
});

test("what LiveStore's client was seen to send, to the byte", async () => {
  const exit = '{"_tag":"Exit","requestId":"0","exit":{"_tag":"Success","value":{"_tag":"SyncMessage.Pong"}}}';
  const seen =
    "91d4724093a45f746167a9726571756573744964a465786974a445786974a130d4724192a45f746167a576616c7565a753756363657373d4724291a45f746167b053796e634d6573736167652e506f6e67";
  assert.equal((await encode(`[${exit}]`)).toString("hex"), seen);
  assert.deepEqual(await decode(Buffer.from(seen, "hex")), [JSON.parse(exit)]);
});

test("halves of letters, where a text was cut in the middle of one, become U+FFFD", async () => {
  const cut = JSON.stringify({ a: "🎉".slice(0, 1), b: "x\\" + "🎉".slice(1) + "y🎉", c: "\\ud83d" });
  assert.ok(cut.includes("\\ud83c"), cut);
  assert.deepEqual(packr().unpack(await encode(`[${cut}]`)), [{ a: "\ufffd", b: "x\\\ufffdy🎉", c: "\\ud83d" }]);
});

test("bytes that are something else are refused, and take no memory", async () => {
  const deep = Buffer.concat([Buffer.alloc(200, 0x91), Buffer.from([0xc0])]);
  const key = Buffer.concat([Buffer.from([0xdb, 0, 0x0f, 0xff, 0xff]), Buffer.alloc(0x0fffff, 0x61)]);
  const bomb = Buffer.concat([Buffer.from([0xdc, 0xff, 0xff, 0xd4, 0x72, 0x40, 0x91]), key, Buffer.from([1]), Buffer.alloc(0xfffe * 2, Buffer.from([0x40, 1]))]);
  for (const bytes of [Buffer.from('{"_tag":"Ping"}'), Buffer.from([0x91]), Buffer.from([0xdd, 255, 255, 255, 255]), deep, bomb, Buffer.from([0xc4, 1, 0]), Buffer.from([0xd4, 0x72, 0x3f, 0x90]), Buffer.from([0xa2, 0xff, 0xff])]) {
    const answer = await ask(`d ${bytes.toString("hex")}`);
    assert.match(answer, /^error /, bytes.subarray(0, 20).toString("hex"));
  }
});
