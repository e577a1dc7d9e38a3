// The service over HTTP: a function a question. What goes wrong is told in words, as a `Failure`.

const BASE = new URL("../", import.meta.url);

/** What went wrong, in words for whoever reads the page. */
export class Failure extends Error {}

export const inWords = (error) => (error instanceof Failure ? error.message : "The page met an error of its own.");

async function told(response) {
  if (response.status === 401 || response.status === 403) return "The service did not accept this API key.";
  if (response.status === 503) {
    const seconds = response.headers.get("Retry-After");
    return `The service is busy. Try again ${seconds ? `in ${seconds} s` : "in a moment"}.`;
  }
  if (response.status === 504) return "The service took too long to answer. Try again.";
  try {
    return (await response.json()).error.message;
  } catch {
    return `The service answered with status ${response.status}, without a reason.`;
  }
}

/** A header has no other characters; neither has any key. */
function printable(key) {
  if (!/^[ -~]*$/.test(key)) throw new Failure("The API key has characters that no key has.");
  return key;
}

async function call(method, path, {body, key, signal} = {}) {
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (key) headers["X-API-Key"] = printable(key);
  let response;
  try {
    response = await fetch(new URL(path, BASE), {method, headers, signal, body: JSON.stringify(body)});
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Failure("The service does not answer. Is it running?");
  }
  if (!response.ok) throw new Failure(await told(response));
  const answer = response.status === 204 ? null : await response.json();
  signal?.throwIfAborted();
  return answer;
}

const query = (path, values) => `${path}?${new URLSearchParams(values)}`;

// What items are called does not change but by this page.
const described = new Map();

export const schema = () => call("GET", "schema");

export const recommend = (asked, signal) => call("POST", "recommend", {body: asked, signal});

export const explain = async (asked, signal) => (await call("POST", "explain", {body: asked, signal})).results;

export const reach = async (id, k) => (await call("POST", "reach", {body: {items: [id], k}})).results[0].users;

/** Items with their metadata, in the order asked. */
export async function items(ids, signal) {
  const missing = ids.filter((id) => !described.has(id));
  if (missing.length) {
    const answer = await call("GET", query("items", missing.map((id) => ["ids", id])), {signal});
    for (const item of answer.results) described.set(item.id, item);
  }
  return ids.map((id) => described.get(id) ?? {id, metadata: {}});
}

/** Items whose `field` contains all that was typed, those liked most first; without a field, by their ids. */
export async function findItems(typed, field, signal) {
  const words = typed.split(/\s+/).filter(Boolean);
  const where = field && words.length ? {and: words.map((word) => ({[field]: {contains: word}}))} : undefined;
  const found = await recommend({where, k: field ? 20 : 100, on_cold: "popular"}, signal);
  const ids = found.items.map(({id}) => id);
  return items(field ? ids : ids.filter((id) => String(id).startsWith(typed)).slice(0, 20), signal);
}

/** An item by its id as text, which the service reads; null if there is none. */
async function find(id) {
  try {
    return (await call("GET", query("items", {ids: id}))).results[0];
  } catch (error) {
    if (error instanceof Failure) return null;
    throw error;
  }
}

/** Adds an item, and returns it as it is kept. */
export async function addItem(id, item, key) {
  // It would be replaced.
  if (await find(id)) throw new Failure(`There is an item ${id} already. Choose another id.`);
  await call("PUT", `items/${encodeURIComponent(id)}`, {body: item, key});
  const one = await find(id);
  described.set(one.id, one);
  return one;
}

export async function removeItem(id, key) {
  await call("DELETE", "items", {body: {items: [id]}, key});
  described.delete(id);
}
