// Requests to the console's own server.

export class Refusal extends Error {
  constructor(status, body) {
    super(body?.error?.message ?? `HTTP ${status}`);
    this.status = status;
    this.code = body?.error?.code;
    this.body = body;
  }
}

// Ends when the page that reads is left; what is being written goes on.
let reading = new AbortController();

export function stopReading() {
  reading.abort();
  reading = new AbortController();
}

async function ask(method, path, body) {
  const form = body instanceof FormData;
  const headers = { "X-Samif-Console": "1" };
  if (body !== undefined && !form) headers["Content-Type"] = "application/json";
  const content = body === undefined || form ? body : JSON.stringify(body);
  const signal = method === "GET" ? reading.signal : null;
  const response = await fetch(`/api${path}`, { method, headers, body: content, credentials: "same-origin", signal });
  const type = response.headers.get("content-type") ?? "";
  if (response.ok) return response;
  throw new Refusal(response.status, type.includes("json") ? await response.json() : null);
}

export async function call(method, path, body) {
  const response = await ask(method, path, body);
  return response.headers.get("content-type")?.includes("json") ? response.json() : null;
}

// Saves a file of the server; what it lacks, in sentences.
export async function save(path) {
  const response = await ask("GET", path);
  const name = /filename="([^"]+)"/.exec(response.headers.get("content-disposition"))[1];
  const address = URL.createObjectURL(await response.blob());
  Object.assign(document.createElement("a"), { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
  return JSON.parse(response.headers.get("x-samif-lost") ?? "[]");
}

export const get = (path) => call("GET", path);
export const post = (path, body) => call("POST", path, body ?? {});
export const put = (path, body) => call("PUT", path, body);
export const del = (path) => call("DELETE", path);
export const query = (values) => new URLSearchParams(values).toString();
