// All that the pages say, in both languages.

const WORDS = {
  en: {
    lead: "Rank documents for a query by the models that are served here.",
    docs: "API",
    playground: "Playground",
    language: "Language",
    query: "Query",
    documents: "Documents",
    hint: "One on each line. Left empty, the server's corpus is searched, if it has one. Ctrl+Enter ranks.",
    more: "More",
    paragraphs: "Empty lines stand between documents, which may have several lines",
    key: "API key (kept in this page only)",
    rank: "Rank",
    example: "Example",
    working: "Working …",
    done: (count, columns) => `${count} documents, ranked ${columns === 1 ? "once" : columns + " times"}.`,
    noQuery: "Give a query.",
    unreachable: "The server cannot be reached.",
    embedder: "Embedder",
    reranker: "Reranker",
    embedder_tuned: "Embedder, fine-tuned",
    reranker_tuned: "Reranker, fine-tuned",
    embedder_baseline: "Embedder, base",
    reranker_baseline: "Reranker, base",
    search: "Search",
    cosine: "cosine, from −1 to 1",
    dot: "dot product",
    "sigmoid of the logit": "score, from 0 to 1",
    cut: "cut: longer than the model takes",
    up: (places) => `▲ ${places} up from the base`,
    down: (places) => `▼ ${places} down from the base`,
    byEmbedder: (rank) => `embedder's rank: ${rank}`,
    send: "Send",
    body: "Body",
    apiLead: "Every route with an example that can be changed and sent.",
  },
  zh: {
    lead: "用这里部署的模型，按与查询的相关程度给文档排序。",
    docs: "接口",
    playground: "试用页",
    language: "语言",
    query: "查询",
    documents: "文档",
    hint: "每行一篇。留空则检索服务器上的语料（如果有）。按 Ctrl+Enter 排序。",
    more: "更多",
    paragraphs: "文档可以有多行，文档之间用空行隔开",
    key: "API 密钥（只保存在本页面）",
    rank: "排序",
    example: "示例",
    working: "计算中……",
    done: (count, columns) => `${count} 篇文档，${columns} 种排序。`,
    noQuery: "请输入查询。",
    unreachable: "无法连接服务器。",
    embedder: "向量模型",
    reranker: "重排模型",
    embedder_tuned: "向量模型（微调后）",
    reranker_tuned: "重排模型（微调后）",
    embedder_baseline: "向量模型（微调前）",
    reranker_baseline: "重排模型（微调前）",
    search: "检索",
    cosine: "余弦相似度，−1 到 1",
    dot: "点积",
    "sigmoid of the logit": "得分，0 到 1",
    cut: "已截断：超过模型的最大长度",
    up: (places) => `▲ 比微调前上升 ${places} 位`,
    down: (places) => `▼ 比微调前下降 ${places} 位`,
    byEmbedder: (rank) => `向量模型排第 ${rank}`,
    send: "发送",
    body: "请求体",
    apiLead: "所有接口，附可以修改和发送的示例。",
  },
};

let language = navigator.language.startsWith("zh") ? "zh" : "en";

export const say = (name, ...values) => {
  const words = WORDS[language][name];
  return typeof words === "function" ? words(...values) : words;
};

export const currentLanguage = () => language;

// Put the words where the page names them.
export function showWords() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const place of document.querySelectorAll("[data-text]")) {
    place.textContent = say(place.dataset.text);
  }
  for (const place of document.querySelectorAll("[data-label]")) {
    place.setAttribute("aria-label", say(place.dataset.label));
  }
  for (const button of document.querySelectorAll("[data-language]")) {
    button.setAttribute("aria-pressed", String(button.dataset.language === language));
  }
}

// Let people change the language; `changed` is called when they do.
export function setUpLanguage(changed = () => {}) {
  for (const button of document.querySelectorAll("[data-language]")) {
    button.addEventListener("click", () => {
      language = button.dataset.language;
      showWords();
      changed();
    });
  }
  showWords();
}

// An element with classes and content, which is text and never markup.
export function make(tag, classes, ...content) {
  const element = document.createElement(tag);
  if (classes) element.className = classes;
  element.append(...content);
  return element;
}

// Ask the server; an error is thrown with what it says.
export async function ask(path, body, key, method = "POST") {
  const headers = { "Content-Type": "application/json" };
  if (key) headers.Authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(path, { method, headers, body });
  } catch {
    throw new Error(say("unreachable"));
  }
  const text = await response.text();
  if (response.ok) return text;
  let reason = `${response.status}`;
  try {
    const { error } = JSON.parse(text);
    reason = typeof error === "string" ? error : error.message;
  } catch { /* it was no JSON */ }
  throw new Error(reason);
}
