"""The texts of reports and figures, in English and Chinese."""

from typing import Literal

from encoders.kinds import KINDS

Language = Literal["en", "zh"]
Words = dict[str, str]

TEXTS: dict[str, tuple[str, str]] = {
    # Page
    "html_language": ("en", "zh-CN"),
    "title_results": ("Evaluation report", "评测报告"),
    "title_run": ("Training report", "训练报告"),
    "task_retrieval": (
        "retrieval: every query searches all documents",
        "检索：每个查询搜索全部文档",
    ),
    "task_reranking": (
        "reranking: the candidates of every query are put in order",
        "重排：给每个查询的候选文档排序",
    ),
    "task_pairs": (
        "judged pairs: scores are compared with the judgements",
        "标注对：把分数与标注比较",
    ),
    "better": ("Better than the base", "优于基础模型"),
    "worse": ("Worse than the base", "不如基础模型"),
    "unclear": ("No significant difference from the base", "看不出与基础模型有差别"),
    "measured": ("Measured", "测量结果"),
    "verdict": (
        "{metric} went from {base} to {tuned}: {difference}, 95 % interval {low} to {high}.",
        "{metric} 从 {base} 变为 {tuned}：{difference}，95 % 区间 {low} 到 {high}。",
    ),
    "verdict_alone": (
        "{metric} is {tuned}. No base model was measured with it.",
        "{metric} 为 {tuned}，没有同时测量基础模型。",
    ),
    "verdict_undefined": ("{metric} is undefined: {reason}.", "{metric} 无定义：{reason}。"),
    "undefined": ("undefined", "无定义"),
    "undefined_because": ("Undefined: {names} ({reason}).", "无定义：{names}（{reason}）。"),
    "counts": (
        "{wins} queries gained, {losses} lost, {ties} stayed as they were.",
        "{wins} 个查询变好，{losses} 个变差，{ties} 个不变。",
    ),
    "what": ("What was measured", "测量了什么"),
    "kind": ("Kind of model", "模型种类"),
    "task": ("Task", "任务"),
    "data": ("Data", "数据"),
    "queries": ("Queries", "查询"),
    "documents": ("Documents", "文档"),
    "pairs": ("Pairs", "文本对"),
    "settings": ("Settings", "设置"),
    "measured_on": ("Measured on", "测量时间"),
    "training": ("How it was trained", "如何训练"),
    "objective": ("Objective", "训练目标"),
    "base_model": ("Base model", "基础模型"),
    "train_file": ("Training data", "训练数据"),
    "eval_file": ("Evaluation data", "训练中评测的数据"),
    "batch_size": ("Batch size per process", "每个进程的批大小"),
    "length": ("Length", "训练长度"),
    "epochs": ("{count} epochs", "{count} 轮"),
    "steps": ("{count} steps", "{count} 步"),
    "comparison": ("Base against fine-tuned", "基础模型与微调后比较"),
    "values": ("Figures", "数值"),
    "first_stage": ("First stage against reranked", "第一阶段与重排后比较"),
    "first_stage_note": (
        "“Base” is here the order of the first stage, {name}.",
        "这里的“基础”是第一阶段 {name} 给出的顺序。",
    ),
    "fused": ("Fused scores", "融合分数"),
    "fused_note": (
        "“Fine-tuned” is here the order by the fused score {name}, “base” that of {other} alone.",
        "这里的“微调后”按融合分数 {name} 排序，“基础”是单独的 {other}。",
    ),
    "metric": ("metric", "指标"),
    "base": ("base", "基础"),
    "fine-tuned": ("fine-tuned", "微调后"),
    "difference_interval": ("difference, 95 % interval", "差值与 95 % 区间"),
    "p_value": ("p", "p"),
    "wins": ("wins", "变好"),
    "losses": ("losses", "变差"),
    "ties": ("ties", "不变"),
    "how_to_read": (
        "A difference is the mean over all queries, with its 95 % interval from a paired "
        "bootstrap; p is the two-sided p-value of a paired randomisation test. An interval without "
        "0 is set in bold: the difference is then unlikely to be chance.",
        "差值是所有查询上的平均，95 % 区间来自配对自助法（paired bootstrap），p 是配对随机化检验的"
        "双侧 p 值。区间不含 0 时用粗体：这样的差别很难归于偶然。",
    ),
    "how_to_read_pairs": (
        "The 95 % interval of a difference is from a paired bootstrap over the pairs; p is the "
        "two-sided p-value of a paired randomisation test. An interval without 0 is set in bold: "
        "the difference is then unlikely to be chance.",
        "差值的 95 % 区间来自对文本对的配对自助法（paired bootstrap），p 是配对随机化检验的双侧 p "
        "值。区间不含 0 时用粗体：这样的差别很难归于偶然。",
    ),
    "figures": ("Pictures", "图"),
    "gained": ("Queries that gained most", "进步最大的查询"),
    "lost": ("Queries that lost most", "退步最大的查询"),
    "none_gained": ("No query gained.", "没有变好的查询。"),
    "none_lost": ("No query lost.", "没有变差的查询。"),
    "changed_note": (
        "{metric} of the query with the base and with the fine-tuned model, and the document that "
        "is judged most relevant to it.",
        "该查询在基础模型和微调后模型下的 {metric}，以及标注中与它最相关的文档。",
    ),
    "no_text": ("(its text is not among the documents)", "（文档集中没有它的文本）"),
    "made_by": ("Made by Tandem.", "由 Tandem 生成。"),
    # Figures
    "loss": ("Loss", "损失"),
    "training_loss": ("training", "训练"),
    "evaluation_loss": ("evaluation", "评测"),
    "learning_rate": ("Learning rate", "学习率"),
    "in_batch_accuracy": ("In-batch accuracy", "批内准确率"),
    "evaluation_metrics": ("Metrics at each evaluation", "每次评测的指标"),
    "step": ("step", "步"),
    "running_mean": ("training, running mean", "训练（滑动平均）"),
    "bars": ("Base against fine-tuned", "基础模型与微调后"),
    "bars_alone": ("Fine-tuned model", "微调后的模型"),
    "bars_caption": (
        "The whisker is the 95 % interval of the difference, set on the base's value: where it "
        "does not reach the end of the grey bar, the difference is unlikely to be chance.",
        "须线是差值的 95 % 区间，以基础模型的值为起点：它碰不到灰色条的末端时，差别很难归于偶然。",
    ),
    "scores": ("Scores of relevant and irrelevant {items}", "相关与不相关{items}的分数"),
    "items_documents": ("documents", "文档"),
    "items_pairs": ("pairs", "文本对"),
    "scores_caption": (
        "The less the two overlap, the better the model tells them apart. Each adds up to 1.",
        "两者重叠越少，模型区分得越好。各自的总和为 1。",
    ),
    "relevant": ("relevant", "相关"),
    "irrelevant": ("irrelevant", "不相关"),
    "score": ("score", "分数"),
    "share": ("share", "占比"),
    "from_to": (
        "{name}: {first} at step {start}, {last} at step {end}",
        "{name}：第 {start} 步 {first}，第 {end} 步 {last}",
    ),
    "at": ("{name}: {first} at step {start}", "{name}：第 {start} 步 {first}"),
    "bar": ("{metric}: {values}", "{metric}：{values}"),
    "alt": ("{title}. {said}.", "{title}。{said}。"),
    "joint": ("; ", "；"),
    "median": (
        "{model}: median {relevant} of relevant, {irrelevant} of irrelevant ones",
        "{model}：相关的中位数 {relevant}，不相关的中位数 {irrelevant}",
    ),
}

WORDS: dict[str, Words] = {
    language: {name: texts[at] for name, texts in TEXTS.items()}
    | {kind: row.labels[language] for kind, row in KINDS.items()}
    for at, language in enumerate(("en", "zh"))
}
