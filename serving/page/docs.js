import { ask, make, setUpLanguage, showWords } from "./words.js";

const find = (id) => document.getElementById(id);
let page = null;

setUpLanguage();
find("form").addEventListener("submit", (event) => event.preventDefault());
find("key").addEventListener("change", load);
load();

async function load() {
  if (page) return;
  try {
    page = JSON.parse(await ask("openapi.json", undefined, find("key").value, "GET"));
    find("status").textContent = "";
    find("status").className = "";
  } catch (error) {
    find("status").textContent = error.message;
    find("status").className = "error";
    return;
  }
  for (const [path, methods] of Object.entries(page.paths)) {
    for (const [method, route] of Object.entries(methods)) {
      find("routes").append(draw(path, method.toUpperCase(), route));
    }
  }
  showWords();
}

function draw(path, method, route) {
  const name = make("code", "", `${method} ${path}`);
  const box = make("details", "route", make("summary", "", name, ` ${route.summary ?? ""}`));
  const answer = make("pre");
  answer.tabIndex = 0;
  answer.setAttribute("aria-live", "polite");
  let body = null;
  const schema = route.requestBody?.content["application/json"].schema;
  if (schema) {
    const id = `body${path.replaceAll("/", "-")}`;
    const label = make("label");
    label.htmlFor = id;
    label.dataset.text = "body";
    body = make("textarea", "body");
    body.id = id;
    body.rows = 6;
    body.value = JSON.stringify(example(schema), null, 2);
    box.append(label, body);
  }
  const send = make("button");
  send.type = "button";
  send.dataset.text = "send";
  send.addEventListener("click", async () => {
    try {
      const text = await ask(path.slice(1), body?.value, find("key").value, method);
      answer.textContent = pretty(text);
    } catch (error) {
      answer.textContent = error.message;
    }
  });
  box.append(make("p", "buttons", send), answer);
  const shown = route.responses["200"]?.content?.["application/json"]?.example;
  if (shown) answer.textContent = JSON.stringify(shown, null, 2);
  return box;
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

// The examples of a body's fields; of several forms the first.
function example(schema) {
  if (schema.$ref) return example(schema.$ref.slice(2).split("/").reduce((at, key) => at[key], page));
  if (schema.examples) return schema.examples[0];
  if (schema.oneOf) return example(schema.oneOf[0]);
  const found = {};
  for (const [name, field] of Object.entries(schema.properties ?? {})) {
    if (field.examples) found[name] = field.examples[0];
    else if (field.$ref && schema.required?.includes(name)) found[name] = example(field);
  }
  return found;
}
