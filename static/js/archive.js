// Leaves out of an image archive what the portal has for the team already. Only tar headers and small documents are read:
// OCI-style archives name their blobs by digest, and in old ones the image's config says the digest of each layer.
const BLOCK = 512;
const LEAST = 64 * 1024; // smaller members are always sent; documents are among them
const DOCUMENT = 8 * 1024 * 1024;
const MEMBERS = 10_000;
const ASKED = 1000;
const text = new TextDecoder();
const bytes = async (file, from, to) => new Uint8Array(await file.slice(from, to).arrayBuffer());
const until0 = (block, from, length) => text.decode(block.subarray(from, from + length)).split("\0", 1)[0];
const clean = (name) => name.split("/").filter((part) => part && part !== ".").join("/");

/** The archive without what is known: {payload, spared, key}; the file itself where nothing can be left out.
 * `ask(digests)` answers with those that are known. */
export async function withoutKnown(file, ask) {
  const whole = { payload: file, spared: 0, key: "" };
  const members = await membersOf(file);
  if (!members) return whole;
  const named = candidates(members);
  for (const [member, digest] of await oldLayers(file, members)) named.set(member, digest);
  const digests = [...new Set(named.values())].slice(0, ASKED);
  const known = digests.length ? new Set(await ask(digests)) : new Set();
  const left = new Map([...named].filter(([, digest]) => known.has(digest)));
  if (!left.size) return whole;
  const spared = [...left.keys()].reduce((sum, member) => sum + member.size, 0);
  return { payload: new Blob(parts(file, members, left)), spared, key: [...left.values()].sort().join() };
}

/** Its members in order, each with its extension headers; null for what is no plain tar. */
async function membersOf(file) {
  const members = [];
  let at = 0, start = 0, extra = {};
  while (at + BLOCK <= file.size && members.length < MEMBERS) {
    const block = await bytes(file, at, at + BLOCK);
    if (block.every((byte) => !byte)) break;
    if (!summed(block)) return null;
    const kind = String.fromCharCode(block[156] || 48);
    const size = "12".includes(kind) ? 0 : extra.size ?? number(block, 124, 12);
    const data = at + BLOCK;
    const end = data + Math.ceil(size / BLOCK) * BLOCK;
    if (!(end <= file.size)) return null;
    if ("xgLK".includes(kind)) {
      if (size > DOCUMENT) return null;
      if (kind === "L") extra.name = until0(await bytes(file, data, data + size), 0, size);
      if (kind === "x") Object.assign(extra, pax(await bytes(file, data, data + size)));
    } else {
      const prefix = until0(block, 257, 5) === "ustar" ? until0(block, 345, 155) : "";
      const name = clean(extra.name ?? (prefix ? `${prefix}/` : "") + until0(block, 0, 100));
      members.push({ name, file: kind === "0" || kind === "7", start, data, size, end });
      [start, extra] = [end, {}];
    }
    at = end;
  }
  return members.length ? members : null;
}

function summed(block) {
  const sum = block.reduce((total, byte, place) => total + (place >= 148 && place < 156 ? 32 : byte), 0);
  return sum === number(block, 148, 8);
}

function number(block, from, length) {
  if (block[from] & 0x80) return block.subarray(from + 1, from + length).reduce((value, byte) => value * 256 + byte, 0);
  return parseInt(until0(block, from, length).trim() || "0", 8);
}

function pax(data) {
  const found = {};
  for (let at = 0; at < data.length;) {
    const space = data.indexOf(32, at);
    const length = parseInt(text.decode(data.subarray(at, space)), 10);
    if (!(length > 0)) break;
    const [key, ...value] = text.decode(data.subarray(space + 1, at + length - 1)).split("=");
    if (key === "path") found.name = value.join("=");
    if (key === "size") found.size = parseInt(value.join("="), 10);
    at += length;
  }
  return found;
}

function candidates(members) {
  const found = new Map();
  for (const member of members) {
    const match = member.file && member.size >= LEAST && /^blobs\/sha256\/([0-9a-f]{64})$/.exec(member.name);
    if (match) found.set(member, `sha256:${match[1]}`);
  }
  return found;
}

/** Layers of an archive from before Docker 25: plain tars, whose digests are the diff ids of the config. */
async function oldLayers(file, members) {
  const found = new Map();
  const named = new Map(members.filter((member) => member.file).map((member) => [member.name, member]));
  const json = async (name) => {
    const member = named.get(clean(name));
    if (!member || member.size > DOCUMENT) return null;
    try { return JSON.parse(text.decode(await bytes(file, member.data, member.data + member.size))); } catch { return null; }
  };
  for (const image of (await json("manifest.json")) ?? []) {
    const ids = (await json(String(image?.Config)))?.rootfs?.diff_ids ?? [];
    for (const [place, name] of (image?.Layers ?? []).entries()) {
      const member = named.get(clean(String(name)));
      if (!member || member.size < LEAST || member.name.length > 99 || member.name.startsWith("blobs/")) continue;
      const head = await bytes(file, member.data, member.data + BLOCK);
      if (ids.length === image.Layers.length && until0(head, 257, 5) === "ustar") found.set(member, ids[place]);
    }
  }
  return found;
}

/** Slices of the file without the members that are left out; an old layer becomes a link to the blob's name. */
function parts(file, members, left) {
  const found = [];
  let from = 0;
  for (const member of members.filter((one) => left.has(one))) {
    found.push(file.slice(from, member.start));
    if (!member.name.startsWith("blobs/sha256/")) found.push(link(member.name, left.get(member)));
    from = member.end;
  }
  found.push(file.slice(from));
  return found;
}

function link(name, digest) {
  const block = new Uint8Array(BLOCK);
  const put = (at, words) => block.set(new TextEncoder().encode(words), at);
  put(0, name);
  put(100, "0000777\0" + "0000000\0".repeat(2) + "00000000000\0".repeat(2) + "        2");
  put(157, "../".repeat(name.split("/").length - 1) + `blobs/sha256/${digest.slice(7)}`);
  put(257, "ustar\x0000");
  put(148, block.reduce((sum, byte) => sum + byte, 0).toString(8).padStart(6, "0") + "\0 ");
  return block;
}
