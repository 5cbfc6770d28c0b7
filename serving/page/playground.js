import { ask, currentLanguage, make, say, setUpLanguage } from "./words.js";

const EXAMPLES = {
  en: {
    query: "How do I read a CSV file in Python?",
    documents: [
      "The csv module reads and writes tabular data in CSV format.",
      "pandas.read_csv loads a comma-separated file into a DataFrame.",
      "json.load reads a JSON document from a file object.",
      "Paris is the capital of France.",
    ],
  },
  zh: {
    query: "感冒发烧应该怎么办？",
    documents: [
      "感冒时要多喝水、多休息，高烧不退应及时就医。",
      "发烧超过38.5度可以在医生指导下服用退烧药。",
      "北京是中国的首都。",
      "今天天气很好，适合去公园散步。",
    ],
  },
};

const find = (id) => document.getElementById(id);
let shown = null; // what was answered last, to be shown anew in another language

find("form").addEventListener("submit", (event) => {
  event.preventDefault();
  rank();
});
find("form").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) find("form").requestSubmit();
});
find("example").addEventListener("click", () => {
  const example = EXAMPLES[currentLanguage()];
  find("query").value = example.query;
  find("paragraphs").checked = false;
  find("documents").value = example.documents.join("\n");
  find("query").focus();
});
setUpLanguage(show);

async function rank() {
  const query = find("query").value.trim();
  if (!query) return tell(say("noQuery"), true);
  const separator = find("paragraphs").checked ? /\n\s*\n/ : /\n/;
  const documents = find("documents").value.split(separator).map((text) => text.trim()).filter(Boolean);
  find("rank").disabled = true;
  tell(say("working"));
  try {
    const path = documents.length ? "compare" : "search";
    const body = JSON.stringify(documents.length ? { query, documents } : { query });
    const answer = JSON.parse(await ask(path, body, find("key").value));
    shown = documents.length ? inColumns(answer, documents) : asColumn(answer);
    show();
  } catch (error) {
    shown = null;
    find("columns").replaceChildren();
    tell(error.message, true);
  } finally {
    find("rank").disabled = false;
  }
}

// The base before what became of it.
function inColumns({ columns }, documents) {
  const found = [];
  for (const kind of ["embedder", "reranker"]) {
    const tuned = columns.find((column) => column.role === kind);
    const base = columns.find((column) => column.role === `${kind}_baseline`);
    for (const [column, title] of [[base, `${kind}_baseline`], [tuned, base ? `${kind}_tuned` : kind]]) {
      if (!column) continue;
      const places = new Map((base?.ranking ?? []).map(({ index }, at) => [index, at]));
      found.push({
        title,
        model: column.model,
        similarity: column.similarity,
        base: column === base,
        rows: column.ranking.map(({ index, score, truncated }, at) => ({
          text: documents[index],
          score,
          truncated,
          climbed: base && column !== base ? places.get(index) - at : 0,
        })),
      });
    }
  }
  return found;
}

function asColumn({ results, models, similarity }) {
  const rows = results.map(({ text, score, truncated, embedder_rank }) => (
    { text, score, truncated, climbed: 0, embedderRank: models.reranker && embedder_rank }
  ));
  return [{ title: "search", model: Object.values(models).join(" + "), similarity, base: false, rows }];
}

function show() {
  if (!shown) return tell("");
  find("columns").replaceChildren(...shown.map(drawColumn));
  tell(say("done", shown[0].rows.length, shown.length));
}

function drawColumn(column, number) {
  const title = make("h2", "", say(column.title));
  title.id = `column-${number}`;
  const about = `${column.model} · ${say(column.similarity) ?? column.similarity}`;
  const section = make("section", column.base ? "base" : "", title, make("p", "model", about));
  section.setAttribute("aria-labelledby", title.id);
  const most = Math.max(1, ...column.rows.map(({ score }) => score)); // dot products have no bound
  const list = make("ol", "", ...column.rows.map((row, at) => drawRow(row, at, most)));
  list.setAttribute("role", "list"); // without markers some screen readers take it for none
  section.append(list);
  return section;
}

function drawRow({ text, score, truncated, climbed, embedderRank }, at, most) {
  const passage = make("span", "passage", text);
  passage.dir = "auto";
  if (text.length > 300) passage.tabIndex = 0; // it scrolls, by the keyboard too
  const row = make("div", "row", make("span", "rank", `${at + 1}.`), passage, make("span", "score", score.toFixed(3)));
  const filled = make("div");
  filled.style.width = `${(100 * Math.max(0, score)) / most}%`;
  const bar = make("div", "bar", filled);
  bar.setAttribute("aria-hidden", "true"); // the number says it
  const item = make("li", "", row, bar);
  const notes = [];
  if (truncated) notes.push(make("span", "cut", say("cut")));
  if (climbed) notes.push(make("span", "change", say(climbed > 0 ? "up" : "down", Math.abs(climbed))));
  if (embedderRank) notes.push(make("span", "change", say("byEmbedder", embedderRank)));
  if (notes.length) item.append(make("p", "notes", ...notes.flatMap((note, n) => (n ? [" · ", note] : [note]))));
  return item;
}

function tell(message, wrong = false) {
  find("status").textContent = message;
  find("status").className = wrong ? "error" : "";
}
