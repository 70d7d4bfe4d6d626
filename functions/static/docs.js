// The /docs page's try-it forms: send the request, show status, our headers and the answer as it comes.
const key = document.getElementById("key");

function address(form) {
  let path = form.dataset.path;
  const query = new URLSearchParams();
  for (const input of form.querySelectorAll("[data-in]")) {
    if (!input.value || input.dataset.in === "header") continue;
    const encoded = input.value.split("/").map(encodeURIComponent).join("/");
    if (input.dataset.in === "path") path = path.replace("{" + input.name + "}", encoded);
    else query.set(input.name, input.value);
  }
  return query.size ? path + "?" + query : path;
}

function headersOf(form) {
  const given = [...form.querySelectorAll('[data-in="header"]')].filter((input) => input.value);
  return Object.fromEntries(given.map((input) => [input.name, input.value]));
}

function head(response) {
  const ours = /^(x-switchyard|x-request|retry|location|preference|idempotent)/;
  const shown = [...response.headers].filter(([name]) => ours.test(name));
  return [`${response.status} ${response.statusText}`, ...shown.map(([name, value]) => `${name}: ${value}`), "", ""].join("\n");
}

async function send(form, out) {
  const body = form.querySelector("textarea");
  const headers = { ...headersOf(form), ...(body && { "content-type": "application/json" }) };
  if (key.value) headers.authorization = "Bearer " + key.value;
  const response = await fetch(address(form), { method: form.dataset.verb, headers, body: body?.value });
  const first = head(response);
  out.textContent = first;
  let whole = "";
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    whole += part.value;
    out.textContent = first + whole;
  }
  try {
    out.textContent = first + JSON.stringify(JSON.parse(whole), null, 2);
  } catch {
    // not JSON: a stream, CSV or nothing, shown as it came
  }
}

document.addEventListener("submit", async (event) => {
  event.preventDefault();
  const out = event.target.querySelector("pre");
  out.hidden = false;
  out.textContent = "…";
  try {
    await send(event.target, out);
  } catch (problem) {
    out.textContent = String(problem);
  }
});
