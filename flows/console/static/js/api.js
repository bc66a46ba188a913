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

export async function call(method, path, body) {
  const form = body instanceof FormData;
  const headers = { "X-Samif-Console": "1" };
  if (body !== undefined && !form) headers["Content-Type"] = "application/json";
  const content = body === undefined || form ? body : JSON.stringify(body);
  const signal = method === "GET" ? reading.signal : null;
  const response = await fetch(`/api${path}`, { method, headers, body: content, credentials: "same-origin", signal });
  const type = response.headers.get("content-type") ?? "";
  const found = type.includes("json") ? await response.json() : null;
  if (!response.ok) throw new Refusal(response.status, found);
  return found;
}

export const get = (path) => call("GET", path);
export const post = (path, body) => call("POST", path, body ?? {});
export const put = (path, body) => call("PUT", path, body);
export const del = (path) => call("DELETE", path);
export const query = (values) => new URLSearchParams(values).toString();
